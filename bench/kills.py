"""Kills of a server and four devices that are real processes: the run goes on, and comes to the same weights.

\b
python bench/kills.py [--kills 40] --out FILE
python bench/kills.py --seed S --runs 1        one run again

A tiny network learns digits, in sync mode, with a checkpoint every --every steps. Now and then one of the five
processes is killed (SIGKILL), or several at once, and each is started again with --resume: who, and how long after the
one before, is drawn from the run's seed. What all five kept in the end must be what they keep where nobody is killed,
bit for bit.
Runs that --out has already are not made again. ``--show FILE`` prints its table.
"""

import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import markdown
import record
from arguments import Arguments

from edgekit.data import images, registry
from edgekit.machine import describe

sys.path.append(str(Path(__file__).parents[1]))
from tests.conftest import export_small
from tests.e2e.fleet import LIMIT_S, Fleet, Process, fleet
from tests.runtime.loopback import coded_by

#: Seconds between two kills, at most; and the shares of kills that hit all five, and two of them.
APART_S, ALL, TWO = 4.0, 0.1, 0.2
Kept = dict[str, dict[str, str]]


class Killed:
    """A server and its devices, each of which can be killed and started again."""

    def __init__(self, made: Fleet, devices: int, epochs: int) -> None:
        self.made, self._devices, self._epochs = made, devices, epochs
        self.names = ["server", *(f"device-{index}" for index in range(devices))]
        self.processes = {"server": made.server, **{name: self._device(name) for name in self.names[1:]}}

    def _device(self, name: str) -> Process:
        share = f"{name.partition('-')[2]}/{self._devices}"
        words = ("--share", share, "--epochs", str(self._epochs), "--reconnect", "60", "--wait", "60", "--resume")
        return self.made.device(name, *words)

    def _start(self, name: str) -> Process:
        if name != "server":
            return self._device(name)
        again = Process(["-m", "edgekit", "serve", "--resume", str(self.made.folder / "server"), "--json",
                         "--listen", f"127.0.0.1:{self.made.port}"])  # fmt: skip
        self.made.processes.append(again)
        return again

    def kill(self, names: list[str]) -> list[str]:
        """Kills those of `names` that have not ended by themselves, and starts them again; their names."""
        alive = [name for name in names if self.processes[name].process.poll() is None]
        for name in alive:
            self.processes[name].process.kill()
            self.processes[name].process.wait()
        self.processes.update({name: self._start(name) for name in alive})
        return alive

    def end(self) -> list[str]:
        """Waits for the end of all; what went wrong."""
        codes = {name: each.process.wait(LIMIT_S) for name, each in self.processes.items()}
        return [f"{name} ended with {code}: {self.processes[name].said[-3:]}" for name, code in codes.items() if code]


def one(bundle: str, rng: random.Random | None, options: Any) -> tuple[dict[str, Any], Kept]:
    """A run in which `options.each` kills are drawn from `rng`, none without it; and what was kept."""
    begun, done, every = time.monotonic(), Counter[str](), f"{options.every}steps"
    serve = ("--devices", str(options.devices), "--checkpoint", every, "--reconnect", "60", "--step-wait", str(LIMIT_S))
    with tempfile.TemporaryDirectory() as folder, fleet(bundle, Path(folder), *serve) as made:
        run = Killed(made, options.devices, options.epochs)
        for _ in range(options.each if rng is not None else 0):
            assert rng is not None
            time.sleep(rng.uniform(0.0, APART_S))
            draw = rng.random()
            number = len(run.names) if draw < ALL else 2 if draw < ALL + TWO else 1
            done.update(run.kill(rng.sample(run.names, number)))
        wrong = run.end()
        back = sum(event["event"] == "went_back" for each in made.processes for event in _events(each))
        kept = {name: made.digests(name) for name in run.names}
    seconds = round(time.monotonic() - begun, 1)
    return {"kills": dict(done), "went_back": back, "seconds": seconds, "wrong": wrong}, kept


def _events(process: Process) -> list[dict[str, Any]]:
    process.end()
    return process.events


def table(made: dict[str, Any]) -> str:
    """The results of a record."""
    runs = made["runs"]
    kills = sum((Counter(run["kills"]) for run in runs), Counter[str]())
    devices = sum(n for name, n in kills.items() if name != "server")
    wrong = sum(bool(run["wrong"]) for run in runs)
    row = (len(runs), kills["server"], devices, sum(run["went_back"] for run in runs), wrong)
    heads = ("runs", "kills of the server", "of devices", "times that a process went back", "runs that went wrong")
    return markdown.table(heads, [tuple(map(str, row))])


def main() -> int:
    arguments = Arguments(__doc__)
    arguments.add("in all, at least", kills=40)
    arguments.add("so many runs, whatever their kills", runs=0)
    arguments.add("of the first run; the next has the next", seed=0)
    arguments.add("steps from one checkpoint to the next", every=5)
    arguments.add("times that somebody is killed in a run", each=5)
    arguments.add(devices=4, epochs=60)
    options = arguments.parse_or_show(table)
    runs: list[dict[str, Any]] = []
    if options.out and os.path.exists(options.out):
        runs = record.read(options.out)["runs"]
    with tempfile.TemporaryDirectory() as scratch:
        digits = images.fit(registry.load("digits", None), (1, 16, 16))
        small = export_small(Path(scratch) / "small", digits, "sgq", groups=4, bits=4)
        bundle = coded_by("temporal", small, Path(scratch)).path
        first, sound = one(bundle, None, options)
        if first["wrong"]:
            raise SystemExit(f"the run without a kill went wrong: {first['wrong']}")
        seed = options.seed
        while seed < options.seed + options.runs if options.runs else _kills(runs) < options.kills:
            if not any(run["seed"] == seed for run in runs):
                made, kept = one(bundle, random.Random(seed), options)
                made["wrong"] += [f"{name} kept other halves" for name in kept if kept[name] != sound[name]]
                runs.append({"seed": seed, **made})
                sys.stderr.write(f"seed {seed}: {made}\n")
                if options.out:
                    setting = {name: getattr(options, name) for name in ("every", "each", "devices", "epochs")}
                    head = {**record.head("torch", "numpy", "onnxruntime", "grpc"), "machine": describe()}
                    record.write({**head, "setting": setting, "runs": runs}, options.out)
            seed += 1
    sys.stdout.write(table({"runs": runs}) + "\n")
    return int(any(run["wrong"] for run in runs))


def _kills(runs: list[dict[str, Any]]) -> int:
    return sum(sum(run["kills"].values()) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
