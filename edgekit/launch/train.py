"""train: what `edgekit train` does. A network is exported, and real processes train it on this machine.

::

    export --bundle--> server --port--> link, where one is emulated --port--> devices --"done"--> summary
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from edgekit.bundle import Bundle, open_bundle
from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.entropy import kernels
from edgekit.errors import Quarantined, UsageError
from edgekit.export.named import export_named, shape_of
from edgekit.export.settings import BoardSettings, Coding, NamedData, NamedNetwork, as_board, as_coding
from edgekit.kept import size_of
from edgekit.launch import flags
from edgekit.launch.earlier import BUNDLE, RECORD, check_out, make_way, mend
from edgekit.launch.processes import Children, Event
from edgekit.launch.rounds import counted, planned
from edgekit.launch.settings import Run, Server, Training
from edgekit.launch.summary import collapsed, summary
from edgekit.line.meter import Recorder
from edgekit.runtime.passes import check_offered
from edgekit.runtime.session import check_augment
from edgekit.schedule import check_schedule
from edgekit.server.calibrate import calibrator
from edgekit.server.layers import update_layers
from edgekit.server.local_loss import LocalLoss
from edgekit.server.noise_filling import noise_filling
from edgekit.server.observe.web import check_metrics
from edgekit.server.policy import parse_checkpoint
from edgekit.server.train import OptimizerConfig
from edgekit.tensorfile import make_folder


def train(
    model: str | NamedNetwork,
    *,
    data: str | NamedData = "digits",
    codec: str | FeatureCodec | Coding = "sgq",
    board: str | BoardSettings = "cpu",
    training: Training = Training(),
    server: Server = Server(),
    seed: int = 0,
    out: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    metrics: str | None = None,
    command: Sequence[str] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_process: "Callable[[str, subprocess.Popen[str]], None]" = lambda name, process: None,
) -> Event:
    """The "summary" event of a whole training: a server process and device processes on this machine.

    `model`, `data` and `board` are names, or settings with the name among them; `codec` is a codec, or its text,
    "sgq:groups=8,bits=4". The folder `out` keeps the bundle, the trained halves and record.jsonl; without it they are
    gone at the end. One that holds an earlier training is refused, unless `overwrite` says that it is to be lost, or
    `resume` that it goes on, from its latest checkpoint: give the same settings then.
    The server serves its metrics and its status at `metrics`, a loopback HOST:PORT (docs/watching.md).
    `command` is what the record says was called (default: the Python program). `on_event` is told every event as it
    comes: those of record.jsonl, and "progress"; docs/record.md describes them. `on_process` is told name and process
    of the server, of an emulated line ("link"), and of each device as it starts. UsageError, ExportError, DataError;
    ChildFailed as soon as a process ends with an error, and then all the others are ended. A device that the server
    puts in quarantine ends alone; Quarantined where that befell all of them. "collapsed" in the summary says why the
    network is of no use, where it is no better than guessing.
    """
    network = NamedNetwork(model) if isinstance(model, str) else model
    data = NamedData(data) if isinstance(data, str) else data
    run = Run(network, data, as_coding(codec), as_board(board), training, server, seed, metrics)
    check(run)
    if resume:
        if out is None or overwrite:
            raise UsageError("a training goes on in the folder that it is in: give out, and not overwrite")
        bundle = open_bundle(os.path.join(out, BUNDLE))
        return train_bundle(run, bundle, out, command, on_event, on_process, resume=True)
    if out is not None:
        check_out(out, overwrite)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or scratch
        make_folder(folder)
        bundle = export_run(run, os.path.join(folder, BUNDLE))
        if out is not None:
            # The server's halves, and at most as much for each device.
            make_way(out, (1 + run.training.devices) * size_of(bundle.path))
        return train_bundle(run, bundle, folder, command, on_event, on_process)


def export_run(run: Run, path: str) -> Bundle:
    """The bundle that `run` trains, written to the folder `path`; UsageError for images that are too few or small."""
    calibration, devices = run.data.load(run.seed), run.training.devices
    images = len(calibration.dataset.train_labels)
    if images < 2 * devices:
        raise UsageError(f"--devices {devices}: {images} training images, expected at least 2 for each")
    check_augment(run.training.augment, run.coding.codec, shape_of(run.network, calibration.dataset))
    coding = run.coding
    if coding.goal is not None and counted(run):
        coding = coding._replace(goal=coding.goal._replace(rounds=planned(run, images)))
    return export_named(path, run.network, calibration, coding, run.board, seed=run.seed, overwrite=True)


def train_bundle(
    run: Run,
    bundle: Bundle,
    folder: str,
    command: Sequence[str] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_process: "Callable[[str, subprocess.Popen[str]], None]" = lambda name, process: None,
    resume: bool = False,
) -> Event:
    """The "summary" event of the training of `run`, whose `bundle` is exported; `folder` keeps what comes of it.

    With `resume` it goes on where it was, in the same folder.
    """
    layers = run.server.fleet.update_layers
    if layers is not None:
        update_layers(layers, bundle.arrays("front.safetensors"), bundle.learned)
    described = _described(run, bundle)
    if resume:
        mend(folder)
    done = []
    quarantined: dict[str, str] = {}
    ended: Event = {}
    with (
        open(os.path.join(folder, RECORD), "a" if resume else "w", encoding="utf-8") as file,
        Children(on_start=on_process) as children,
    ):
        record = Recorder(file)

        def tell(event: Event) -> None:
            if event["event"] != "progress":
                record(event)
            on_event(event)

        called = ["python", *sys.argv] if command is None else list(command)
        tell(dict(described, event="start", command=called, time=time.time()))
        for name, event in _events(run, bundle.path, folder, children, resume):
            if name == "server" and event["event"] == "listening":
                described["calibrate"] = event["calibrate"]
            if event["event"] == "done":
                done.append(event)
            elif event["event"] == "quarantined":
                quarantined[event["device"]] = event["reason"]
            elif event["event"] == "ended" and name == "server":
                ended = event
            tell(dict(event, process=name))
        if not done:
            reasons = "; ".join(f"{device}: {reason}" for device, reason in sorted(quarantined.items()))
            raise Quarantined(
                f"every device was put in quarantine, nothing came of the run: {reasons}. If the devices are sound "
                "training diverged: lower --lr"
            )
        last = summary(described, done, quarantined, ended)
        last["collapsed"] = collapsed(last, bundle.classes)
        tell(last)
    return last


def check(run: Run) -> None:
    """UsageError for what the processes would refuse, but only after the export."""
    server = run.server
    run.training.check()
    if run.metrics is not None:
        check_metrics(run.metrics, insecure=False)
    check_augment(run.training.augment, run.coding.codec)
    kernels.choice()
    check_offered(run.board.provider, run.training.backend)
    OptimizerConfig(server.optimizer, server.lr, server.momentum, server.weight_decay).check()
    check_schedule(server.schedule)
    if server.gradient_codec is not None:
        calibrator(server.gradient_codec, run.seed)
    noise_filling(server.noise_filling, run.coding.codec, run.seed)
    LocalLoss(server.local_loss, server.gradient_every).check()
    if server.local_loss and not run.board.local_head:
        raise UsageError(f"--local-loss {server.local_loss}: that is the local head's: leave --no-local-head out")
    server.fleet.check()
    _check_layers(run)
    counted(run)
    parse_checkpoint(server.checkpoint)
    if run.training.regroup_every and run.in_step:
        raise UsageError(
            f"--regroup-every {run.training.regroup_every}: devices whose front halves are averaged keep one grouping: "
            "leave it out, or train with --sync-every 0"
        )


def _check_layers(run: Run) -> None:
    """UsageError where rounds are to carry some layers only, and each of them has all, as a test follows it."""
    layers, every = run.server.fleet.update_layers, run.server.fleet.rounds(run.training.devices).every
    tests = run.training.evaluate_every
    if layers is not None and every.epochs and every.epochs % tests == 0:
        raise UsageError(
            f"--update-layers {layers}: a test follows every round, and carries all layers: test less often than there "
            f"are rounds, with --evaluate-every {5 * every.epochs}, or --sync-every in steps"
        )


def _events(
    run: Run, bundle: str, folder: str, children: Children, resume: bool = False
) -> Iterator[tuple[str, Event]]:
    """(process, event) of all processes, each of which is started when the one that it connects to listens."""
    line = run.training.link
    children.start("server", flags.server(run, bundle, os.path.join(folder, "server"), resume))
    for name, event in children.events(forgiven=(Quarantined.exit_code,)):
        if event["event"] == "listening" and name == "server" and line is not None:
            children.start("link", flags.link(run, line, event["port"]))
        elif event["event"] == "listening":
            for index in range(run.training.devices):
                out = os.path.join(folder, f"device-{index}")
                children.start(f"device-{index}", flags.device(run, bundle, out, index, event["port"], resume))
        yield name, event


def _described(run: Run, bundle: Bundle) -> Event:
    """What was run, as "start" and "summary" say it."""
    server, board = run.server.as_options(), run.board
    return {
        "model": run.network.name,
        "device": board.device if isinstance(board.device, str) else board.device.name,
        "provider": bundle.wanted_provider,
        "codec": run.coding.codec.codec_id,
        "significance": run.coding.significance,
        "dataset": run.data.dataset,
        "limit": run.data.limit,
        "calibration": run.data.n_images,
        "seed": run.seed,
        # The server says which, once it listens.
        "calibrate": server.pop("gradient_codec"),
        **run.training._asdict(),
        **server,
        "cut": bundle.cut,
        "norm": bundle.norm,
        "codec_config": bundle.codec.config,
        "feature": list(bundle.feature_shape),
        "formula_bytes_up_per_image": bundle.codec.formula_bits(bundle.feature_shape) / 8,
        "bundle": bundle.digest,
        **({"rate": bundle.manifest["rate"]} if "rate" in bundle.manifest else {}),
    }
