"""Bytes from outside through everything that reads some: only errors of edgekit, no crash, no growth.

``python bench/fuzz_inputs.py [--inputs 1000000] [--targets frames,hellos] [--out FILE]``: each target of
bench/fuzz_targets.py in a process of its own, its share of --inputs one after another. Inputs are made by atheris,
which watches what they reach in edgekit, where the Python of --python has it; else by changing the examples at random.
--corpus DIR keeps what reached something new, and a later call goes on from it. An input that does not parse must
raise an error of edgekit; any other, a crash, or a reader that takes a minute, ends the target, and DIR keeps the
input. Memory is measured apart, where nothing watches: what was kept, changed at random, a fifth as often. ``--show
FILE`` prints the table of such a file.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import record
from arguments import Arguments

from edgekit.errors import EdgekitError
from edgekit.machine import describe

#: Inputs from one look at the memory to the next, and a reader's longest input and time.
LOOK, LONGEST, LIMIT_S = 500, 1 << 14, 60
HEADS = ("target", "inputs", "refused", "seconds", "corpus", "MiB after a tenth", "MiB at the end", "found")


class Counted:
    """Reads inputs, and writes how many there were and how much memory the process has to `path` now and then."""

    def __init__(self, read: Callable[[bytes], object], path: Path) -> None:
        self._read, self._path, self._begun = read, path, time.monotonic()
        self._inputs = self._refused = 0

    def __call__(self, data: bytes) -> None:
        try:
            self._read(data)
        except EdgekitError as error:
            # Whoever gets it must be able to read it.
            str(error).encode()
            self._refused += 1
        finally:
            self._inputs += 1
            if self._inputs % LOOK == 0:
                self.tell()

    def tell(self) -> None:
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * resource.getpagesize() / 2**20
        told = {"inputs": self._inputs, "refused": self._refused, "mib": round(resident, 1),
                "seconds": round(time.monotonic() - self._begun, 1)}  # fmt: skip
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def feed(target: str, inputs: int, corpus: Path, told: Path, seed: int, plain: bool) -> None:
    """`inputs` inputs for `target`, in this process; `plain`: by random changes even where there is atheris."""
    atheris = None
    with contextlib.suppress(ImportError):
        if not plain:
            import atheris  # type: ignore[import-not-found, import-untyped, no-redef, unused-ignore]
    sys.path.append(str(Path(__file__).parents[1]))
    watched: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if atheris is not None:
        watched = atheris.instrument_imports(include=["edgekit"])
    with watched:
        from fuzz_targets import TARGETS

        examples, read = TARGETS[target][0]()
    for number, example in enumerate(examples):
        (corpus / f"example-{number}").write_bytes(example)
    counted = Counted(read, told)
    if atheris is None:
        change(counted, [path.read_bytes() for path in sorted(corpus.iterdir())], inputs, corpus, seed)
        return
    limits = [f"-runs={inputs}", f"-max_len={LONGEST}", f"-timeout={LIMIT_S}", "-rss_limit_mb=4096", f"-seed={seed}"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={corpus.parent}/{target}-", str(corpus)], counted)
    atheris.Fuzz()


def change(read: Counted, examples: list[bytes], inputs: int, corpus: Path, seed: int) -> None:
    """Reads examples that are changed at random, so many times."""
    # Not before atheris watches what is imported.
    from fuzz import damaged

    rng = np.random.default_rng(seed + 1)
    for _ in range(inputs):
        given = examples[rng.integers(len(examples))]
        for _ in range(rng.integers(1, 4)):
            given = damaged(given, rng)[:LONGEST]
        try:
            read(given)
        except Exception:
            (corpus.parent / f"{corpus.name}-crash").write_bytes(given)
            raise


def fuzz(target: str, inputs: int, corpus: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What came of `target`."""
    own = corpus / target
    own.mkdir(parents=True, exist_ok=True)
    passes = [
        run(target, inputs, own, [], options),
        run(target, max(inputs // 5, 10 * LOOK), own, ["--plain"], options),
    ]
    memory = passes[1]["seen"]
    early = next(each for each in memory if each["inputs"] >= memory[-1]["inputs"] / 10)
    return {
        "target": target, **{key: sum(each["seen"][-1][key] for each in passes) for key in ("inputs", "refused")},
        "seconds": round(sum(each["seen"][-1]["seconds"] for each in passes), 1), "corpus": len(list(own.iterdir())),
        "mib_begin": early["mib"], "mib_end": memory[-1]["mib"],
        "found": passes[0]["found"] or passes[1]["found"],
    }  # fmt: skip


def run(target: str, inputs: int, own: Path, more: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """One process: what it "seen" said now and then, and what it "found", None for nothing."""
    # In memory: some targets write every input to a file, which is not for a disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        told = Path(scratch) / "told"
        words = ["--target", target, "--told", str(told), "--inputs", str(inputs), "--corpus", str(own), *more]
        done = subprocess.run(
            [options.python, __file__, *words, "--seed", str(options.seed + 1)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env={**os.environ, "TMPDIR": scratch},
        )  # fmt: skip
        lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    seen = [json.loads(line) for line in lines] or [{"inputs": 0, "refused": 0, "mib": 0.0, "seconds": 0.0}]
    found = None if done.returncode == 0 else (done.stderr[-3000:] or f"exit code {done.returncode}")
    return {"seen": seen, "found": found}


def engine(python: str) -> str:
    """What makes the inputs in `python`."""
    asked = subprocess.run([python, "-c", "import atheris"], capture_output=True)
    return "random changes" if asked.returncode else "atheris"


def table(made: dict[str, Any]) -> str:
    """The results of a record."""
    rows = [
        (row["target"], f"{row['inputs']:,}", f"{row['refused']:,}", f"{row['seconds']:.0f}", str(row["corpus"]),
         f"{row['mib_begin']:.0f}", f"{row['mib_end']:.0f}", "something" if row["found"] else "nothing")
        for row in made["results"]
    ]  # fmt: skip
    rows.append(("all", f"{sum(row['inputs'] for row in made['results']):,}", "", "", "", "", "", ""))
    return markdown.table(HEADS, rows)


def measure(options: argparse.Namespace) -> int:
    """All targets, and the record; 1 when something was found."""
    sys.path.append(str(Path(__file__).parents[1]))
    from fuzz_targets import TARGETS

    wanted = options.targets.split(",") if options.targets else list(TARGETS)
    results = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        corpus = Path(options.corpus or scratch).resolve()
        shares = [max(int(options.inputs * TARGETS[target][1]), LOOK) for target in wanted]
        for found in pool.map(lambda target, share: fuzz(target, share, corpus, options), wanted, shares):
            results.append(found)
            sys.stderr.write(json.dumps(found) + "\n")
            made = {**record.head("numpy"), "machine": describe(), "engine": engine(options.python), "results": results}
            if options.out:
                record.write(made, options.out)
    sys.stdout.write(table({"results": results}) + "\n")
    return int(any(row["found"] for row in results))


def main() -> int:
    arguments = Arguments(__doc__)
    arguments.add("of all targets together", inputs=1_000_000)
    arguments.add("default: all", targets=None)
    arguments.add("the Python that has atheris", python=sys.executable)
    arguments.add("where inputs are kept", corpus=None)
    arguments.add("targets at a time", jobs=2)
    arguments.add(seed=0)
    arguments.add(argparse.SUPPRESS, target=None, told=None, plain=False)
    options = arguments.parse_or_show(table)
    if options.target:
        feed(options.target, options.inputs, Path(options.corpus), Path(options.told), options.seed, options.plain)
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return measure(options)


if __name__ == "__main__":
    sys.exit(main())
