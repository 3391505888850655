"""The record of a measurement: the results of its cells, as the JSON object that docs/measure.md describes."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from edgekit.link.link import Link
from edgekit.measure.methods import parse
from edgekit.report.records import FORMAT, VERSION

#: The published speedup: images/s of SGQ over images/s of uniform quantisation, in training.
PAPER = {
    "speedup_over_uniform": 9.22,
    "source": "Zhou et al., Hierarchical Channel-spatial Encoding for Communication-efficient Collaborative Learning, "
    "NeurIPS 2022, abstract; its models, links and devices are not these",
}
#: The methods that others are compared with, if they were measured too.
BASELINES = ("fp32", "uq")
#: A warning is given from this spread of a cell's repeats on, and from this share of the processors taken by others.
NOISY_SPREAD, NOISY_OTHERS = 0.1, 0.05

Cell = dict[str, Any]
Key = tuple[str, str, int]


def record(
    setting: dict[str, Any],
    codecs: dict[str, Any],
    links: dict[str, Link | None],
    cells: list[Cell],
    encoding: list[Cell],
    machines: dict[str, Any],
    command: list[str],
    when: str,
    failed: str | None = None,
) -> dict[str, Any]:
    """The record of one measurement. `when` is UTC in ISO 8601; `failed` says why it is incomplete."""
    results = summarise(cells, links, baselines(codecs))
    return {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "time": when,
        "setting": setting,
        "machine": machines,
        "codecs": codecs,
        "links": {name: link._asdict() if link else None for name, link in links.items()},
        "cells": cells,
        "encoding": encoding,
        "results": results,
        "limits": limits(results),
        "paper": PAPER,
        "warnings": [f"not complete: {failed}"] * bool(failed) + warnings(results, cells, machines),
    }


def baselines(codecs: dict[str, Any]) -> dict[str, str]:
    """Baseline -> the name in `codecs` of the method with the same codec, settings and gradient."""
    found = {}
    for base in map(parse, BASELINES):
        for name, codec in codecs.items():
            same = (codec["codec"], codec["gradient"]) == (base.codec, base.gradient)
            if same and base.config.items() <= codec["config"].items():
                found[base.name] = name
    return found


def summarise(cells: list[Cell], links: dict[str, Link | None], against: dict[str, str]) -> list[dict[str, Any]]:
    """One result for each codec, link and number of batches in flight: medians over the repeats, and their spread.

    `against` is baseline -> codec. A speedup is the median of the ratios within each repeat, in which both were
    measured one after the other.
    """
    by_key: dict[Key, list[Cell]] = {}
    for cell in cells:
        by_key.setdefault(_key(cell), []).append(cell)
    found = []
    for (codec, link, depth), repeats in by_key.items():
        rates = [cell["images_per_s"] for cell in repeats]
        up, down = (
            statistics.median(sum(cell["bytes_per_image"][way].values()) for cell in repeats) for way in ("up", "down")
        )
        found.append(
            {
                "codec": codec,
                "link": link,
                "in_flight": depth,
                "images_per_s": _spread(rates),
                "speedup": {
                    base: _spread(_ratios(repeats, by_key[name, link, depth]))
                    for base, name in against.items()
                    if (name, link, depth) in by_key
                },
                "bytes_up_per_image": up,
                "bytes_down_per_image": down,
                **{
                    name: {part: _known([cell[name][part] for cell in repeats]) for part in repeats[0][name]}
                    for name in ("latency_s", "seconds_per_image", "cpu_seconds_per_image", "peak_memory_bytes")
                },
                "staleness": statistics.median(cell["staleness"] for cell in repeats),
                "joules_per_image": _known([cell["joules_per_image"] for cell in repeats]),
                "link_bound_images_per_s": link_bound(links[link], up, down, depth),
            }
        )
    return found


def link_bound(link: Link | None, up: float, down: float, in_flight: int) -> float | None:
    """The images/s that the rates of `link` alone would allow; None for loopback.

    With one batch in flight its bytes go up and then down; with several, both directions are busy at once.
    """
    if link is None:
        return None
    ways = 8 * up / link.up_bit_s, 8 * down / link.down_bit_s
    return link.moving / (sum(ways) if in_flight == 1 else max(ways))


def limits(results: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Codec -> batches in flight -> images/s without a link, and the symmetric link rate below which the link binds.

    With one batch in flight, bytes up, bytes down and computing follow each other: the link binds when both directions
    together take as long as computing. With several they overlap: it binds when the slower direction does.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for result in results:
        if result["link"] == "loopback":
            rate = result["images_per_s"]["median"]
            both = result["bytes_up_per_image"], result["bytes_down_per_image"]
            n_bytes = sum(both) if result["in_flight"] == 1 else max(both)
            found.setdefault(result["codec"], {})[str(result["in_flight"])] = {
                "compute_bound_images_per_s": rate,
                "binds_below_bit_s": 8 * n_bytes * rate,
            }
    return found


def warnings(results: list[dict[str, Any]], cells: list[Cell], machines: dict[str, Any]) -> list[str]:
    """Warnings that a reader has to know before trusting the figures."""
    found = []
    wide = [r for r in results if _width(r["images_per_s"]) > NOISY_SPREAD]
    if wide:
        worst = max(wide, key=lambda result: _width(result["images_per_s"]))
        found.append(
            f"{len(wide)} of {len(results)} results spread by more than {NOISY_SPREAD:.0%} over their repeats, most "
            f"{worst['codec']} over {worst['link']}: {_width(worst['images_per_s']):.0%}"
        )
    busy = [cell["others_cpu"] for cell in cells if cell["others_cpu"] is not None]
    if busy and statistics.median(busy) > NOISY_OTHERS:
        found.append(
            f"other processes took {statistics.median(busy):.0%} of the processors meanwhile: end them, measure again"
        )
    for side, told in machines.items():
        locked = told["clocks"]["locked"]
        if locked is None:
            found.append(f"{side}: clocks cannot be read, so nobody knows whether they changed meanwhile")
        elif not locked:
            found.append(f"{side}: clocks are not locked (a Jetson: sudo jetson_clocks): rates depend on heat and load")
    return found


def _key(cell: Cell) -> Key:
    return cell["codec"], cell["link"], cell["in_flight"]


def _ratios(repeats: list[Cell], base: list[Cell]) -> list[float]:
    rates = {cell["repeat"]: cell["images_per_s"] for cell in base}
    return [cell["images_per_s"] / rates[cell["repeat"]] for cell in repeats if cell["repeat"] in rates]


def _known(values: Sequence[float | None]) -> float | None:
    """The median of `values`; None when one of them is not known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) == len(values) else None


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def _width(spread: dict[str, float]) -> float:
    """The range from lowest to highest, as a share of the median."""
    return (spread["high"] - spread["low"]) / spread["median"] if spread["median"] else math.inf
