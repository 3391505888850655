"""The record of how a fleet scales: the results of its cells, as the JSON object that docs/measure.md describes."""

import statistics
from collections.abc import Sequence
from typing import Any

from edgekit.link.link import Link
from edgekit.measure.record import NOISY_OTHERS, NOISY_SPREAD
from edgekit.report.records import SCALING, VERSION

#: A side binds from this share of what it could compute on.
FULL = 0.9

Cell = dict[str, Any]
Key = tuple[str, str, str, int]


def record(
    setting: dict[str, Any],
    codecs: dict[str, Any],
    links: dict[str, Link | None],
    cells: list[Cell],
    machine: dict[str, Any],
    command: list[str],
    when: str,
    failed: str | None = None,
) -> dict[str, Any]:
    """The record of one measurement. `when` is UTC in ISO 8601; `failed` says why it is incomplete."""
    results = summarise(cells, setting)
    return {
        "format": SCALING,
        "version": VERSION,
        "command": command,
        "time": when,
        "setting": setting,
        "machine": machine,
        "codecs": codecs,
        "links": {name: link._asdict() if link else None for name, link in links.items()},
        "cells": cells,
        "results": results,
        "warnings": [f"not complete: {failed}"] * bool(failed) + warnings(results, cells, setting),
    }


def summarise(cells: list[Cell], setting: dict[str, Any]) -> list[dict[str, Any]]:
    """One result for each codec, line, mode and number of devices: medians over the repeats, and their spread.

    "speedup" is over the fewest devices that were measured, the median of the ratios within each repeat; "efficiency"
    is its share of what as many times more devices would make. `setting` is the record's: what there was to compute on.
    """
    by_key: dict[Key, list[Cell]] = {}
    for cell in cells:
        by_key.setdefault((cell["codec"], cell["link"], cell["mode"], cell["devices"]), []).append(cell)
    found = []
    for (codec, link, mode, devices), repeats in by_key.items():
        fewest = min(key[3] for key in by_key if key[:3] == (codec, link, mode))
        first = {cell["repeat"]: cell["images_per_s"] for cell in by_key[codec, link, mode, fewest]}
        ratios = [cell["images_per_s"] / first[cell["repeat"]] for cell in repeats if cell["repeat"] in first]
        busy = _medians(repeats, "busy")
        others = statistics.median(cell["others_cpu"] for cell in repeats)
        found.append(
            {
                "codec": codec,
                "link": link,
                "mode": mode,
                "devices": devices,
                **{
                    name: _spread([cell[name] for cell in repeats])
                    for name in ("images_per_s", "device_rates", "accuracy", "balanced_accuracy")
                },
                "speedup": {"over_devices": fewest, **_spread(ratios)} if ratios else None,
                "efficiency": statistics.median(ratios) * fewest / devices if ratios else None,
                **{
                    f"bytes_{way}_per_image": statistics.median(
                        sum(cell["bytes_per_image"][way].values()) for cell in repeats
                    )
                    for way in ("up", "down")
                },
                "seconds_per_image": _medians(repeats, "seconds_per_image"),
                "cpu_seconds_per_image": _medians(repeats, "cpu_seconds_per_image"),
                "busy": busy,
                "binds": binds(busy, devices, others, setting),
            }
        )
    return found


def binds(busy: dict[str, float], devices: int, others: float, setting: dict[str, Any]) -> str:
    """What is used to the full, so that more of it would make the fleet faster.

    `busy` is in cores, `others` the share of all processors that other processes took. "server": its threads;
    "devices": each has all of its share of a core; "processors": those of this machine, which all processes share, so
    that no board's rate is measured; "none": devices and server wait, for each other or for the line. A server that
    computes on another device than a CPU is not seen to bind.
    """
    share = setting["device_share"] or 1.0
    if busy["server"] >= FULL * setting["threads"]["server"]:
        return "server"
    if busy["device"] >= FULL * share:
        return "devices"
    everything = sum(busy.values()) + busy["device"] * (devices - 1)
    return "processors" if everything / setting["cores"] + others >= FULL else "none"


def crowded(setting: dict[str, Any]) -> list[int]:
    """Numbers of devices whose processes, with the server's threads, do not each have the cores that they could use."""
    share, cores = setting["device_share"] or 1.0, setting["cores"]
    return [n for n in setting["devices"] if n * share + setting["threads"]["server"] > cores]


def warnings(results: list[dict[str, Any]], cells: list[Cell], setting: dict[str, Any]) -> list[str]:
    """Warnings that a reader has to know before trusting the figures."""
    found = []
    several = crowded(setting)
    if several:
        each = "a core" if setting["device_share"] is None else f"{setting['device_share']:g} of a core"
        found.append(
            f"{', '.join(map(str, several))} device processes at {each} each, and the server, share {setting['cores']} "
            "cores: their images/s are not those of as many boards"
        )
    wide = [r for r in results if _width(r["images_per_s"]) > NOISY_SPREAD]
    if wide:
        found.append(f"{len(wide)} of {len(results)} results spread by more than {NOISY_SPREAD:.0%} over their repeats")
    busy = [cell["others_cpu"] for cell in cells]
    if busy and statistics.median(busy) > NOISY_OTHERS:
        found.append(
            f"other processes took {statistics.median(busy):.0%} of the processors meanwhile: end them, measure again"
        )
    lost = [cell for cell in cells if cell["quarantined"]]
    if lost:
        told = next(iter(lost[0]["quarantined"].items()))
        found.append(f"{len(lost)} of {len(cells)} trainings lost devices to quarantine, first {': '.join(told)}")
    useless = [cell for cell in cells if cell["collapsed"]]
    if useless:
        found.append(
            f"{len(useless)} of {len(cells)} trainings are no better than guessing: their accuracy says nothing of "
            "scaling, more --images might"
        )
    return found


def _medians(repeats: Sequence[Cell], name: str) -> dict[str, float]:
    return {part: statistics.median(cell[name][part] for cell in repeats) for part in repeats[0][name]}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def _width(spread: dict[str, float]) -> float:
    """The range from lowest to highest, as a share of the median."""
    return (spread["high"] - spread["low"]) / spread["median"]
