"""Random faults of the line, of a server and four devices that are real processes: nothing lost, nothing done twice.

\b
python bench/faults.py [--faults 200] --out FILE
python bench/faults.py --modes sync --seed S --runs 1        one run again

A tiny network learns digits. Each device talks to `edgekit serve` through a proxy of its own, which cuts, delays,
truncates, corrupts or repeats a chunk of every connection, until it has done so --each times: which, in which direction
and after how many bytes is drawn from the run's seed. There are runs in each of --modes until --faults came about.

In sync mode what all five processes kept must be what they keep over sound lines, bit for bit. In both modes each
process writes down the batches that it sends or that it applies to the back half, and the two lists of each device must
be one: every batch once, in order. Runs that --out has already are not made again. ``--show FILE`` prints its table.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import markdown
import record
from arguments import Arguments

from edgekit.bundle import Bundle
from edgekit.cli.serve import serve as serve_command
from edgekit.data import images, registry
from edgekit.errors import EdgekitError
from edgekit.launch.flags import as_flags
from edgekit.launch.processes import Children
from edgekit.line.messages import AnyMessage, Feature
from edgekit.machine import describe
from edgekit.runtime import __main__ as device_program
from edgekit.runtime.line import Reconnecting
from edgekit.server.handlers import training
from edgekit.server.handlers.training import Learned

sys.path.append(str(Path(__file__).parents[1]))
from tests.conftest import export_small
from tests.faults import KINDS, Fault, FaultyProxy, draw
from tests.runtime.loopback import coded_by

#: A codec whose both ends remember all that they sent: one batch lost or taken twice shows in all that follow.
CODING = "temporal"
#: Bytes of a connection within which its fault comes.
WITHIN = 16000
#: Seconds that a run may take, with the waits of a busy machine.
LIMIT_S = 600
SHARED = ("devices", "each", "epochs", "batch", "in_flight")
HEADS = ("mode", "runs", "faults", *KINDS, "lines brought back", "batches", "runs that went wrong")
#: Device, number of the batch, CRC-32 of its labels and codes.
Entry = tuple[str, int, int]
Run = dict[str, Any]


def entry(device: str, message: Feature) -> Entry:
    return device, message.step, zlib.crc32(message.labels + message.codes)


@contextlib.contextmanager
def written(event: str) -> Iterator[list[Entry]]:
    """A list that this process writes to standard output when it ends, as the "batches" of an `event`."""
    entries: list[Entry] = []
    try:
        yield entries
    finally:
        sys.stdout.write(json.dumps({"event": event, "batches": entries}) + "\n")


def serve(flags: list[str]) -> None:
    """`edgekit serve`, which writes down the batches that the back half learned from."""
    with written("applied") as entries:
        train = training.train

        def recorded(*given: Any) -> list[Learned]:
            learned = train(*given)
            entries.extend(
                entry(each.work.session.device, each.work.message) for each in learned if each.outcome is not None
            )
            return learned

        training.train = recorded  # type: ignore[assignment]
        serve_command.main(flags, standalone_mode=False)


def device(flags: list[str]) -> int:
    """`edgekit run`, which writes down the batches that it sends."""
    with written("sent") as entries:
        send, name = Reconnecting.send, device_program.parser("").parse_args(flags).name

        def recorded(self: Reconnecting, message: AnyMessage) -> None:
            if isinstance(message, Feature):
                entries.append(entry(name, message))
            send(self, message)

        Reconnecting.send = recorded  # type: ignore[assignment, method-assign]
        return device_program.main(flags)


def one(bundle: Bundle, mode: str, faults: Sequence[Sequence[Fault]], options: argparse.Namespace) -> Run:
    """One run whose device i meets the i-th of `faults`; "kept" is the digest of every file that was kept."""
    begun = time.monotonic()
    events: list[tuple[str, dict[str, Any]]] = []
    wrong: list[str] = []
    proxies: list[FaultyProxy] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        children = stack.enter_context(Children([sys.executable, __file__, "--role"]))
        # A run that hangs ends badly.
        limit = threading.Timer(LIMIT_S, children.stop)
        limit.start()
        stack.callback(limit.cancel)
        patience = {"step_wait": LIMIT_S if mode == "sync" else None, "round_wait": LIMIT_S}
        told = as_flags({"listen": "127.0.0.1:0", "devices": len(faults), "mode": mode, **patience,
                         "out": os.path.join(folder, "server")})  # fmt: skip
        children.start("server", ["serve", "--", bundle.path, "--json", *told])
        try:
            for name, event in children.events():
                events.append((name, event))
                if event["event"] == "listening":
                    for i, own in enumerate(faults):
                        proxies.append(FaultyProxy(f"127.0.0.1:{event['port']}", list(own)))
                        stack.callback(proxies[-1].close)
                        flags = as_flags({"server": f"127.0.0.1:{proxies[-1].port}", "name": f"device-{i}",
                                          "share": f"{i}/{len(faults)}", "epochs": options.epochs,
                                          "batch": options.batch, "in_flight": options.in_flight,
                                          "out": os.path.join(folder, f"device-{i}")})  # fmt: skip
                        children.start(f"device-{i}", ["run", "--", bundle.path, "--json", *flags])
        except EdgekitError as error:
            wrong.append(str(error))
        kept = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(folder).rglob("*.safetensors"))
        }
    applied = [tuple(each) for _, event in events if event["event"] == "applied" for each in event["batches"]]
    wrong += each_once(events, applied, len(faults))
    return {
        "mode": mode, "seconds": round(time.monotonic() - begun, 1),
        "faults": dict(Counter(fault.kind for proxy in proxies for fault in proxy.done)),
        "brought_back": sum(event["event"] == "resumed" for _, event in events), "batches": len(applied),
        "wrong": wrong, "kept": kept,
    }  # fmt: skip


def each_once(events: list[tuple[str, dict[str, Any]]], applied: list[Any], devices: int) -> list[str]:
    """What is wrong with the batches that were `applied`: they must be those that each device sent, in its order."""
    wrong = []
    sent = {name: list(map(tuple, event["batches"])) for name, event in events if event["event"] == "sent"}
    if len(sent) < devices:
        wrong.append(f"{len(sent)} devices said what they sent, expected {devices}")
    for name, own in sent.items():
        there = [each for each in applied if each[0] == name]
        if not own or there != own or [step for _, step, _ in own] != list(range(len(own))):
            wrong.append(f"{name} sent {len(own)} batches, applied were {len(there)}, and they are not the same")
    return wrong


def faulty(bundle: Bundle, mode: str, seed: int, sound: dict[str, str], options: argparse.Namespace) -> Run:
    """The run of `seed`, and what is wrong with it: in sync mode also what it kept other than `sound`."""
    faults = draw(seed, options.devices * options.each, WITHIN)
    made = one(bundle, mode, [faults[i :: options.devices] for i in range(options.devices)], options)
    kept = made.pop("kept")
    if mode == "sync":
        apart = sorted(name for name in {*sound, *kept} if sound.get(name) != kept.get(name))
        made["wrong"] += [f"{name} is not that of a run over sound lines" for name in apart]
    return {"seed": seed, **made}


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs of a record share."""
    return {**{key: getattr(options, key) for key in SHARED}, "coding": CODING, "within_bytes": WITHIN}


def results(runs: list[Run]) -> list[dict[str, Any]]:
    """A row for each mode."""
    rows = []
    for mode in dict.fromkeys(run["mode"] for run in runs):
        same = [run for run in runs if run["mode"] == mode]
        kinds = sum((Counter(run["faults"]) for run in same), Counter[str]())
        rows.append({
            "mode": mode, "runs": len(same), "faults": kinds.total(), "kinds": dict(kinds),
            **{key: sum(run[key] for run in same) for key in ("brought_back", "batches")},
            "wrong": sum(bool(run["wrong"]) for run in same),
        })  # fmt: skip
    return rows


def table(made: dict[str, Any]) -> str:
    """The results of a record."""
    rows = []
    for row in made["results"]:
        kinds = [row["kinds"].get(kind, 0) for kind in KINDS]
        figures = (row["runs"], row["faults"], *kinds, row["brought_back"], row["batches"], row["wrong"])
        rows.append((row["mode"], *map(str, figures)))
    return markdown.table(HEADS, rows)


def measure(options: argparse.Namespace) -> int:
    """All runs that are wanted and not there; 1 when one went wrong."""
    runs: list[Run] = []
    if options.out and os.path.exists(options.out):
        kept = record.read(options.out)
        if kept["setting"] != setting(options):
            raise SystemExit(f"{options.out} has runs of {kept['setting']}: choose another --out")
        runs = kept["runs"]
    with tempfile.TemporaryDirectory() as scratch:
        digits = images.fit(registry.load("digits", None), (1, 16, 16))
        bundle = coded_by(CODING, export_small(Path(scratch) / "small", digits, "sgq", groups=4, bits=4), Path(scratch))
        sound: dict[str, str] = {}
        for mode in options.modes.split(","):
            for seed in itertools.count(options.seed):
                there = [run for run in runs if run["mode"] == mode]
                if options.runs and seed >= options.seed + options.runs:
                    break
                if not options.runs and sum(sum(run["faults"].values()) for run in there) >= options.faults:
                    break
                if any(run["seed"] == seed for run in there):
                    continue
                if mode == "sync" and not sound:
                    first = one(bundle, mode, [()] * options.devices, options)
                    if first["wrong"]:
                        raise SystemExit(f"the run without a fault went wrong: {first['wrong']}")
                    sound = first["kept"]
                runs.append(faulty(bundle, mode, seed, sound, options))
                tell(runs[-1])
                if options.out:
                    head = {**record.head("torch", "numpy", "onnxruntime", "grpc"), "machine": describe()}
                    made = {**head, "setting": setting(options), "results": results(runs), "runs": runs}
                    record.write(made, options.out)
    sys.stdout.write(table({"results": results(runs)}) + "\n")
    return int(any(run["wrong"] for run in runs))


def tell(run: Run) -> None:
    told = f"{run['mode']}, seed {run['seed']}: {sum(run['faults'].values())} faults, {run['seconds']} s\n"
    if run["wrong"]:
        again = f"python bench/faults.py --modes {run['mode']} --seed {run['seed']} --runs 1"
        told += "".join(f"  {each}\n" for each in run["wrong"]) + f"  again: {again}\n"
    sys.stderr.write(told)


def main() -> int:
    arguments = Arguments(__doc__)
    arguments.add("in each mode, at least", faults=200)
    arguments.add("so many runs in each mode, whatever their faults", runs=0)
    arguments.add("of the first run; the next has the next", seed=0)
    arguments.add(modes="sync,async", devices=4)
    arguments.add("faults of each device in a run, if it lasts so long", each=15)
    arguments.add(epochs=4, batch=32, in_flight=2)
    arguments.add(argparse.SUPPRESS, role=None)
    arguments.add_argument("flags", nargs="*", help=argparse.SUPPRESS)
    options = arguments.parse_or_show(table)
    if options.role == "serve":
        serve(options.flags)
        return 0
    return device(options.flags) if options.role == "run" else measure(options)


if __name__ == "__main__":
    sys.exit(main())
