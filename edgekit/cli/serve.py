"""edgekit serve"""

import os
import signal
import sys
import threading

import click

from edgekit.cli import options


@click.command()
@options.bundle
@click.option("--listen", default="127.0.0.1:50051", metavar="HOST:PORT", help="Port 0 takes a free one.")
@click.option(
    "--devices", type=int, metavar="N", help="End after N devices have finished (default: serve until Ctrl-C)."
)
@options.training
@options.seed
@click.option("--out", metavar="DIR", help="Keep the trained back half here when ending.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def serve(
    bundle: str,
    listen: str,
    devices: int | None,
    optimizer: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    schedule: str,
    gradient_codec: str | None,
    noise_filling: str | None,
    torch_device: str,
    server_threads: int,
    seed: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Train the back half of BUNDLE for devices that connect.

    No model code is needed: the bundle holds the back half as programs. Devices start with the same bundle and
    `edgekit run`; one with another bundle is refused.
    """
    from edgekit import tensorfile
    from edgekit.bundle import open_bundle

    # Before torch is imported, which takes seconds: a mistake shows at once.
    opened = open_bundle(bundle)
    from edgekit.line.meter import Recorder
    from edgekit.server import listen as listener
    from edgekit.server import noise_filling as noise
    from edgekit.server import train
    from edgekit.server.calibrate import calibrator, default_policy
    from edgekit.server.service import service_from_bundle

    if out is not None:
        tensorfile.make_folder(out)
    train.prepare(server_threads, seed)
    policy = gradient_codec or default_policy(opened)
    service = service_from_bundle(
        opened,
        train.torch_device(torch_device),
        calibrator(policy, seed),
        train.OptimizerConfig(optimizer, lr, momentum, weight_decay),
        schedule,
        noise.noise_filling(noise_filling, opened.codec, seed),
    )
    record = Recorder(sys.stdout)
    finished = threading.Event()

    def show(event: dict[str, object]) -> None:
        if as_json:
            record(event)
        else:
            click.echo(", ".join(f"{key} {value}" for key, value in event.items()))
        if devices is not None and service.finished >= devices:
            finished.set()

    service.on_event = show
    server = listener.serve(service, listen, max_workers=max(devices or 0, 64))
    grace_s = 1.0
    try:
        show({"event": "listening", "port": server.port, "bundle": opened.digest, "calibrate": policy})
        # In slices: a signal that the system hands to a thread of gRPC's does not wake a wait without end.
        while not finished.wait(0.5):
            pass
        # The last device's goodbye is still to be answered.
        grace_s = 30.0
    finally:
        # A second Ctrl-C must not cost the trained back half.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        server.stop(grace_s)
        if out is not None:
            tensorfile.write(os.path.join(out, "back.safetensors"), service.setup.back.state_dict())
