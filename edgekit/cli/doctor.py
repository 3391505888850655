"""edgekit doctor"""

import click

from edgekit.cli import options


@click.command()
@click.argument("bundle", metavar="[BUNDLE]", required=False)
@click.option("--device", metavar="NAME", help="Board to compare with (default: the bundle's); `edgekit devices`.")
@click.option("--server", metavar="HOST:PORT", help="Also ask the server there: reachable, its time, its bundle.")
@click.option("--identity", metavar="DIR", help="Ask it by mutual TLS, as the device that DIR says: `edgekit enroll`.")
@click.option("--backend", help="Inference engine (default: the board's own, else onnxruntime).")
@options.provider
@options.as_json
def doctor(
    bundle: str | None,
    device: str | None,
    server: str | None,
    identity: str | None,
    backend: str | None,
    provider: str,
    as_json: bool,
) -> None:
    """Say whether this machine is fit to run a bundle, and what is missing.

    It checks Python and libraries, driver and chip, memory, swap and disk, system image, power mode, clocks and
    temperatures, and the connection to the server. Versions are compared with the profile of a board, the rest with
    what a run needs. What cannot be read is unknown, with the reason. Exit code 8 when something failed. On a board
    that has only the device part, the same command is `python3 -m edgekit.runtime.doctor`.

    \b
    edgekit doctor                                   this machine, for ONNX Runtime
    edgekit doctor bundle                            for the board that the bundle was exported for
    edgekit doctor --device jetson-nano              for a board, without a bundle
    edgekit doctor bundle --server 10.0.0.2:50051    and the line to its server
    """
    from edgekit.device_profiles.registry import profile
    from edgekit.runtime.doctor import run

    run(bundle, profile(device).to_json() if device else None, server, backend, as_json, provider, identity)
