"""edgekit serve"""

import contextlib
import sys
import threading
from typing import Any

import click

from edgekit.cli import going_on, options
from edgekit.cli.loading import loading
from edgekit.errors import UsageError
from edgekit.signals import ignore_stops

#: How long a server that is stopped waits for its devices to save.
DRAIN_S = 10.0


@click.command()
@click.argument("bundle", metavar="BUNDLE", required=False)
@click.option("--listen", default="127.0.0.1:50051", metavar="HOST:PORT", help="Port 0 takes a free one.")
@click.option(
    "--identity", metavar="DIR", help="Take enrolled devices alone, by mutual TLS: DIR of `edgekit enroll init`."
)
@click.option("--insecure", is_flag=True, help="Listen in the clear to other machines: everyone there may join.")
@click.option(
    "--devices", type=int, metavar="N", help="End after N devices have finished (default: serve until Ctrl-C)."
)
@options.training
@options.fleet
@options.seed
@click.option(
    "--out",
    metavar="DIR",
    help="Keep the last pair of halves here, and the best one in DIR/best, after every test and about every minute.",
)
@options.checkpoint
@click.option(
    "--resume", metavar="DIR", help="Go on with the run that DIR, an --out, holds, from its latest checkpoint."
)
@options.overwrite
@options.metrics
@click.option(
    "--rank-timeout",
    default=60.0,
    metavar="SECONDS",
    help="With several ranks: one that says nothing for so long is lost, and all end.",
)
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def serve(**given: Any) -> None:
    """Train the back half of BUNDLE for devices that connect.

    No model code is needed: the bundle holds the back half as programs. Devices start with the same bundle and
    `edgekit run`, each with a name of its own; one with another bundle is refused. With --devices N training begins
    when all N are there, and in sync mode the same seed gives the same weights, bit for bit.

    \b
    edgekit serve bundle --devices 4 --out runs/four
    edgekit serve --resume runs/four          after a crash or a stop: the run goes on, with its options

    Several processes, the ranks, train one back half where torchrun starts them:

    \b
    torchrun --nproc-per-node 2 -m edgekit serve BUNDLE --listen HOST:50051 --devices 4

    Each rank listens for itself: the first one of a machine at the port of --listen, the next one at the next port,
    and so on, and of --metrics too; its event "listening" says where. Training begins when N devices are there, at all
    ranks together; each may be at any of them. Rank 0 writes --out, which needs --checkpoint 0: ranks do not save runs
    yet.
    """
    from edgekit.bundle import open_bundle
    from edgekit.kept import check_new, check_room, size_of
    from edgekit.line.address import check_address
    from edgekit.line.clear import check_clear
    from edgekit.server.observe.web import check_metrics
    from edgekit.server.policy import parse_checkpoint
    from edgekit.server.ranks.place import check_options, place_of

    place = place_of()
    if given["resume"] is not None:
        given = going_on.options_of(given)
    elif given["bundle"] is None:
        raise UsageError("BUNDLE is missing: the folder that `edgekit export` wrote; only --resume DIR does without")
    if not place.alone:
        check_options(given)
    out, devices, seed = given["out"] if place.first else None, given["devices"], given["seed"]
    # Before torch is imported, which takes seconds: a mistake shows at once.
    check_address(given["listen"])
    check_clear("--listen", given["listen"], given["identity"] is not None, given["insecure"])
    if given["metrics"] is not None:
        check_metrics(given["metrics"], given["insecure"])
    address = place.listen(given["listen"])
    opened = open_bundle(given["bundle"])
    options.check_overwrite(given)
    every = parse_checkpoint(given["checkpoint"])
    if out is not None:
        check_new(out, given["overwrite"], given["resume"] is not None)
        check_room(out, size_of(opened.path))
    with loading():
        # Brings torch.
        from edgekit.server import train
    from edgekit.line.meter import Recorder
    from edgekit.saves import Saves
    from edgekit.server import events
    from edgekit.server import listen as listener
    from edgekit.server.calibrate import calibrator, default_policy
    from edgekit.server.checkpoints import Checkpoints
    from edgekit.server.door import Door
    from edgekit.server.handshakes import Handshakes
    from edgekit.server.layers import update_layers
    from edgekit.server.local_loss import LocalLoss
    from edgekit.server.memory import few_arenas, return_free
    from edgekit.server.modes import FleetSettings
    from edgekit.server.noise_filling import noise_filling
    from edgekit.server.observe.observer import Observer
    from edgekit.server.pairs import Pairs
    from edgekit.server.run import Run
    from edgekit.server.service import Service
    from edgekit.server.setup import setup_from_bundle
    from edgekit.server.watch import Watch

    door = Door(given["identity"]) if given["identity"] is not None else None
    fleet = FleetSettings(**{name: given[name] for name in FleetSettings._fields})
    patience, rounds = fleet.patience(devices), fleet.rounds(devices)
    if rounds.layers is not None:
        update_layers(rounds.layers, opened.arrays("front.safetensors"), opened.learned)
    resume = given["resume"] is not None
    joint = None
    if not place.alone:
        from edgekit.server.ranks.join import Joint

        joint = Joint(place, given)
    pairs = Pairs(out, opened.class_names, 0, given["overwrite"], resume) if out is not None else None
    few_arenas()
    return_free()
    train.prepare(given["server_threads"], seed)
    policy = given["gradient_codec"] or default_policy(opened)
    device = train.torch_device(given["torch_device"])
    setup = setup_from_bundle(
        opened,
        joint.meet(device) if joint else device,
        calibrator(policy, seed),
        train.OptimizerConfig(given["optimizer"], given["lr"], given["momentum"], given["weight_decay"]),
        given["schedule"],
        noise_filling(given["noise_filling"], opened.codec, seed),
        LocalLoss(given["local_loss"], given["gradient_every"]),
    )
    if joint:
        setup = joint.agree(setup)
    watch = Watch(setup.classes, setup.golden_size, bool(rounds.every) or devices == 1) if given["quarantine"] else None
    checkpoints = None
    if out is not None and (every or resume):
        saves = Saves(out, "server")
        if not resume:
            saves.clear()
        checkpoints = Checkpoints(saves, every, going_on.settings(given))
    make_run = joint.make_run if joint else Run
    service = Service(
        setup, lambda event: None, patience, rounds, pairs, seed, watch, checkpoints, make_run
    )  # fmt: skip
    record, run, most = Recorder(sys.stdout), events.new_run(), max(devices or 0, 64)
    observer: Observer | None = None
    finished = threading.Event()
    one_at_a_time = threading.Lock()

    def show(event: dict[str, Any]) -> None:
        if joint:
            event = {**event, "rank": place.rank}
        if observer is not None:
            observer.event(event)
        with one_at_a_time:
            if given["as_json"]:
                record(events.stamped(event, run))
            else:
                click.echo(", ".join(f"{key} {_short(value)}" for key, value in event.items()))
        if devices is not None and joint is None and service.fleet.ended >= devices:
            finished.set()

    service.on_event = show
    with contextlib.ExitStack() as ends:
        if door is not None:
            door.on_event = show
            ends.enter_context(Handshakes(show))
        if given["metrics"] is not None:
            observer = Observer(service, place.listen(given["metrics"]), run, devices, most)
            ends.callback(observer.close)
        if resume:
            service.recovery.go_on()
        traffic = None if observer is None else observer.sight.traffic
        server = listener.serve(service, address, max_workers=most, door=door, traffic=traffic)
        grace_s = 1.0
        try:
            ports = {"port": server.port} if observer is None else {"port": server.port, "metrics": observer.port}
            show({"event": "listening", **ports, "bundle": opened.digest, "calibrate": policy})
            if joint:
                joint.start(finished.set)
            # In slices: a signal that the system hands to a thread of gRPC's does not wake a wait without end.
            while not finished.wait(0.5):
                pass
            # The last device's goodbye is still to be answered; or all are to hear why the run ends.
            grace_s = 5.0 if joint and joint.failed else 30.0
        finally:
            # A second Ctrl-C must not cost the trained back half.
            ignore_stops()
            if observer is not None:
                observer.sight.stopping = True
            if not finished.is_set():
                service.recovery.drain(DRAIN_S)
            server.stop(grace_s)
            try:
                service.keep_last()
            finally:
                show(service.ended())
    if joint:
        joint.close()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
