"""The coder of weight updates beside DeepCABAC: bytes, and how many values a second, on updates of real training.

``python bench/update_coder.py --updates FILE --nncodec-python PYTHON [--out FILE]``: FILE is what saved_updates.py
wrote, which says too how levels are chosen. PYTHON is the interpreter of an environment with PyPI's nncodec 2.1.3
(``python -m venv ENV; ENV/bin/pip install pybind11 setuptools wheel 'numpy<2'; ENV/bin/pip install --no-deps
--no-build-isolation nncodec==2.1.3``). update_worker.py says how DeepCABAC is set. ``--show FILE`` prints the table of
such a file.

The two take turns on every case, one core each; what is told is the process's CPU time, the median of all turns. Rates
are millions of values a second, zeros among them. "entropy" is what an ideal coder would need that knew how often each
level occurs in each array, and nothing of places. Of the cases named by `PLAIN` the record has what the kernels of
plain Python take, too, coded once.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import record
from arguments import Arguments
from saved_updates import LEVELS, Update, read
from timing import quartiles

from edgekit.codecs.entropy import kernels, rows

WAYS = ("encode", "decode")
#: Cases of the first run that plain Python codes, too.
PLAIN = ("all", "99 % zero")


class Peer:
    """DeepCABAC in a process of its own, which has the cases of the file `path`; ends with the block."""

    def __init__(self, python: str, path: str) -> None:
        script = str(Path(__file__).with_name("update_worker.py"))
        self._process = subprocess.Popen(
            [python, script, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=dict(os.environ, OMP_NUM_THREADS="1"),
        )
        self.version: str = self._answer()["nncodec"]

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def turn(self, case: str) -> dict[str, Any]:
        """Bytes and milliseconds of coding `case` once."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"case": case}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"nncodec's process ended with {self._process.wait()}: see its words above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def turn(arrays: Update) -> dict[str, Any]:
    """Bytes and milliseconds of coding `arrays` once by the kernels that are chosen."""
    parts = list(arrays.values())
    levels = np.concatenate([part.reshape(-1) for part in parts])
    sizes, lines = (np.array(numbers) for numbers in zip(*map(shape, parts), strict=True))
    start = time.process_time()
    payload = rows.encode(levels, sizes, lines)
    middle = time.process_time()
    again = rows.decode(payload, 0, sizes, lines)
    end = time.process_time()
    np.testing.assert_array_equal(again, levels)
    return {"bytes": len(payload), "encode_ms": 1e3 * (middle - start), "decode_ms": 1e3 * (end - middle)}


def shape(array: np.ndarray) -> tuple[int, int]:
    """Values and rows."""
    return array.size, len(array) if array.ndim > 1 else 1


def told(turns: list[dict[str, Any]], values: int) -> dict[str, Any]:
    """Of one coder: bytes, times, and rates by the median."""
    (size,) = {each["bytes"] for each in turns}
    found: dict[str, Any] = {"bytes": size}
    for way in WAYS:
        ms = quartiles(np.array([each[f"{way}_ms"] for each in turns]), 3)
        found[way] = {**ms, "m_per_s": round(values / ms["median_ms"] / 1e3, 2)}
    return found


def entropy(arrays: Update) -> float:
    """Bytes by the order-0 entropy of each array."""
    bits = 0.0
    for array in arrays.values():
        counts = np.unique(array, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / array.size)).sum())
    return bits / 8


def measure(cases: dict[str, Update], python: str, repeats: int) -> tuple[str, list[dict[str, Any]]]:
    """The version of nncodec, and a row for each case."""
    seen: dict[str, dict[str, list[dict[str, Any]]]] = {case: {"rows": [], "deepcabac": []} for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "levels.npz")
        named = ((f"{case}/{name}", array) for case, arrays in cases.items() for name, array in arrays.items())
        np.savez(path, **{name: array.astype(np.int32) for name, array in named})  # type: ignore[arg-type]
        with Peer(python, path) as peer:
            for number in range(repeats + 1):
                for case, arrays in cases.items():
                    ours, theirs = turn(arrays), peer.turn(case)
                    if number:  # the first is a warm-up
                        seen[case]["rows"].append(ours)
                        seen[case]["deepcabac"].append(theirs)
                sys.stderr.write(f"turn {number} of {repeats}\n")
            version = peer.version
    found = []
    for case, arrays in cases.items():
        values = sum(array.size for array in arrays.values())
        row: dict[str, Any] = {"case": case, "values": values}
        row["nonzero"] = round(sum(int(np.count_nonzero(array)) for array in arrays.values()) / values, 5)
        row["entropy_bytes"] = round(entropy(arrays))
        found.append({**row, **{coder: told(turns, values) for coder, turns in seen[case].items()}})
    for row in found[: len(LEVELS)]:
        if row["case"].endswith(PLAIN):
            with kernels.using("numpy"):
                row["python"] = told([turn(cases[row["case"]])] * 2, row["values"])
            assert row["python"]["bytes"] == row["rows"]["bytes"]
    return version, found


def total(found: list[dict[str, Any]]) -> dict[str, Any]:
    """All cases as one: the sums of bytes and of the medians of time."""
    values = sum(row["values"] for row in found)
    row: dict[str, Any] = {"case": "all", "values": values}
    row["nonzero"] = round(sum(each["nonzero"] * each["values"] for each in found) / values, 5)
    row["entropy_bytes"] = sum(each["entropy_bytes"] for each in found)
    for coder in ("rows", "deepcabac"):
        row[coder] = {"bytes": sum(each[coder]["bytes"] for each in found)}
        for way in WAYS:
            ms = round(sum(each[coder][way]["median_ms"] for each in found), 3)
            row[coder][way] = {"median_ms": ms, "m_per_s": round(values / ms / 1e3, 2)}
    return row


def table(made: dict[str, Any]) -> str:
    """Markdown of a record."""
    cells = []
    for row in [*made["cases"], made["total"]]:
        ours, theirs = row["rows"], row["deepcabac"]
        line = [row["case"], f"{100 * row['nonzero']:.1f}"]
        line += [f"{size:,}" for size in (row["entropy_bytes"], theirs["bytes"], ours["bytes"])]
        line += [f"{100 * (ours['bytes'] / theirs['bytes'] - 1):+.1f} %"]
        for way in WAYS:
            rates = [coder[way]["m_per_s"] for coder in (theirs, ours)]
            line += [f"{rates[0]:.1f}", f"{rates[1]:.0f}", f"{rates[1] / rates[0]:.1f}x"]
        cells.append(line)
    rates = [f"{way}, {kind}" for way in WAYS for kind in ("DeepCABAC, M/s", "edgekit, M/s", "times")]
    heads = ("update", "% not 0", "entropy, B", "DeepCABAC, B", "edgekit, B", "to DeepCABAC", *rates)
    return markdown.table(heads, cells)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("the updates, as saved_updates.py writes them", updates="updates.npz")
    arguments.add("the interpreter that has nncodec", nncodec_python="")
    arguments.add("turns of each", repeats=7)
    options = arguments.parse_or_show(table)
    if not options.nncodec_python:
        arguments.error("--nncodec-python: name the interpreter that has nncodec")
    updates = read(options.updates)
    cases = {f"{run}: {way}": choose(update) for run, update in updates.items() for way, choose in LEVELS.items()}
    with kernels.using("native"):
        version, found = measure(cases, options.nncodec_python, options.repeats)
    made = {
        **record.head("numpy"),
        "nncodec": version,
        "updates": hashlib.sha256(Path(options.updates).read_bytes()).hexdigest(),
        "cases": found,
        "total": total(found),
    }
    sys.stderr.write(table(made) + "\n")
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
