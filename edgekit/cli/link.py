"""edgekit link"""

import sys
import time

import click

#: Seconds between two lines of output.
EVERY_S = 2.0


@click.command()
@click.argument("link", metavar="LINK")
@click.option("--to", "target", required=True, metavar="HOST:PORT", help="Where connections are forwarded to.")
@click.option("--listen", default="127.0.0.1:0", metavar="HOST:PORT",
              help="Port 0 takes a free one.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1), metavar="N",
              help="End after N connections have ended (default: forward until Ctrl-C).")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, help="Decides the jitter.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def link(link: str, target: str, listen: str, connections: int | None, seed: int, as_json: bool) -> None:
    """Emulate a link: forward TCP connections at its rate and with its delay.

    LINK is RATE[/RATE][+DELAY][+jitter=TIME][+stall=TIME@TIME]: bits per second up and down; the round trip as ping
    shows it; how much longer each way takes at most; how long nothing moves, and how often. All connections share the
    link. Devices connect to it instead of the server.

    \b
    edgekit link 10mbit+50ms --to 127.0.0.1:50051 --listen 127.0.0.1:50052
    edgekit link 2mbit/10mbit+30ms+jitter=5ms+stall=300ms@10s --to server:50051
    """
    from edgekit.line.meter import Recorder
    from edgekit.link.emulator import LinkEmulator
    from edgekit.link.link import parse_link

    parsed = parse_link(link)
    record = Recorder(sys.stdout)
    with LinkEmulator(parsed, target, listen, seed) as emulator:
        start_cpu_s, last, last_s = time.process_time(), emulator.bytes, time.monotonic()
        if as_json:
            record({"event": "listening", "port": emulator.port, "link": str(parsed)})
        else:
            click.echo(f"listening at port {emulator.port}, {parsed} to {target}")
        try:
            while connections is None or emulator.ended < connections or emulator.open:
                emulator.wait(0.1)
                now_s = time.monotonic()
                if not as_json and now_s >= last_s + EVERY_S:
                    now = emulator.bytes
                    if now != last:
                        click.echo(_rates(now, last, now_s - last_s) + f"; {emulator.open} connections")
                    last, last_s = now, now_s
        finally:
            carried = {f"bytes_{way}": n for way, n in emulator.bytes.items()}
            carried |= {"connections": emulator.ended + emulator.open, "unreachable": emulator.unreachable}
            if as_json:
                record({"event": "carried", **carried, "cpu_s": time.process_time() - start_cpu_s})
            else:
                click.echo(", ".join(f"{name} {n}" for name, n in carried.items()))


def _rates(now: dict[str, int], last: dict[str, int], seconds: float) -> str:
    return "; ".join(f"{way} {n / 1e6:.3f} MB, {8e-6 * (n - last[way]) / seconds:.3f} Mbit/s" for way, n in now.items())
