"""edgekit status"""

import http.client
import json
import socket
import time
from typing import Any

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgekit.cli import options
from edgekit.cli.screen import numbers, wide
from edgekit.errors import PayloadError, TransportError

PATH = "/status"
#: Seconds without a word from the server, and bytes of the longest status that is read.
SILENT_S, MOST = 10.0, 1 << 24
NUMBER = (int, float)
#: Fields that the table is made of, and their types; those of `OPTIONAL` may be null or missing.
FIELDS = {
    "edgekit": str, "run": str, "now": NUMBER, "began": NUMBER, "progress": NUMBER, "steps": int, "rounds": int,
    "images": int, "devices": list, "waited_for": list, "joining": list, "errors": dict,
}  # fmt: skip
OPTIONAL = {"loss": NUMBER, "rate": NUMBER, "last_step": NUMBER, "tested": dict, "devices_expected": int}
OF_DEVICE = {"name": str, "state": str, "step": int, "images": int, "bytes_up": int, "bytes_down": int}
OPTIONAL_OF_DEVICE = {"behind": int, "loss": NUMBER, "heard": NUMBER, "reason": str}
#: No number of a status comes near it, and each below can be a float.
LARGEST = 1 << 63

Status = dict[str, Any]


@click.command()
@click.argument("address", metavar="HOST:PORT")
@options.as_json
@click.option(
    "--watch", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Ask again and again, with so long between."
)
def status(address: str, as_json: bool, watch: float | None) -> None:
    """Show how the run of a server is: how far, what each device does, and who is waited for.

    HOST:PORT is what `edgekit serve --metrics` says. Proxies are not used.
    """
    from edgekit.line.address import check_address

    host, port = check_address(address)
    console = wide(100)
    while True:
        found = parse(fetch(host, port, address), address)
        if as_json:
            options.print_json(found)
        else:
            if watch is not None:
                console.clear()  # of a terminal alone
            console.print(table(found))
        if watch is None:
            return
        time.sleep(watch)


def fetch(host: str, port: int, address: str) -> bytes:
    """What is served for `PATH` at `host` and `port`, which `address` says; TransportError where nothing is."""
    connection = http.client.HTTPConnection(host, port, timeout=SILENT_S)
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        content = answer.read(MOST + 1)
    except socket.gaierror:
        raise TransportError(f"the host {host} is unknown here: look for a mistake in the name") from None
    except (http.client.HTTPException, ConnectionResetError, ValueError):
        raise TransportError(
            f"something listens at {address} that does not speak HTTP: give the address of `edgekit serve --metrics`, "
            "which is not that of --listen"
        ) from None
    except OSError as error:
        raise TransportError(
            f"no server answers at {address} ({error.strerror or error}): start `edgekit serve --metrics {address}`, "
            "or correct the address"
        ) from None
    finally:
        connection.close()
    if answer.status != 200 or len(content) > MOST:
        told = f"code {answer.status}" if answer.status != 200 else f"more than {MOST} B"
        raise TransportError(
            f"{address} speaks HTTP, and answers with {told} to {PATH}: it is no `edgekit serve --metrics`"
        )
    return content


def parse(content: bytes, address: str) -> Status:
    """The status in `content`, which came from `address`. TransportError where it is of no edgekit server, PayloadError
    where a field is not as this version has it.
    """
    try:
        status = json.loads(content)
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, dict) or not isinstance(status.get("edgekit"), str):
        raise TransportError(f"what {address} gives for {PATH} is no status of an edgekit server: correct the address")
    _check(status, FIELDS, OPTIONAL, "status")
    for name in ("waited_for", "joining"):
        if not all(isinstance(each, str) for each in status[name]):
            raise PayloadError(f"status: '{name}' has what is no name, expected names of devices")
    if status.get("tested") is not None:
        _check(status["tested"], {"epoch": int, "accuracy": NUMBER}, {}, "status: test")
    for device in status["devices"]:
        if not isinstance(device, dict):
            raise PayloadError(f"status: a device is a {type(device).__name__}, expected an object")
        _check(device, OF_DEVICE, OPTIONAL_OF_DEVICE, "status: device")
    return status


def _check(found: Status, fields: dict[str, Any], optional: dict[str, Any], what: str) -> None:
    for name, kind in {**fields, **optional}.items():
        value = found.get(name)
        if value is None and name in optional:
            continue
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits or (isinstance(value, NUMBER) and not -LARGEST < value < LARGEST):
            told = repr(value)[:40] if isinstance(value, (str, *NUMBER)) else f"a {type(value).__name__}"
            raise PayloadError(
                f"{what}: '{name}' is {told}, expected {getattr(kind, '__name__', 'a number')}: are server and command "
                "of one version of edgekit?"
            )


def table(status: Status) -> Group:
    """The run in some lines, and a row for each device."""
    columns = numbers("step", "behind", "images", "up", "down", "loss", "heard")
    reasons = any(device.get("reason") for device in status["devices"])
    rows = Table("device", "state", *columns, *(["reason"] if reasons else []))
    for device in status["devices"]:
        name, heard = device["name"], device.get("heard")
        loss, behind = device.get("loss"), device.get("behind")
        cells = (
            str(device["step"]), "" if behind is None else str(behind), str(device["images"]),
            _size(device["bytes_up"]), _size(device["bytes_down"]), "" if loss is None else f"{loss:.3f}",
            "" if heard is None else _ago(status["now"] - heard), *([device.get("reason") or ""] if reasons else []),
        )  # fmt: skip
        state = device["state"].replace("waits_", "waits for the ")
        style = "bold yellow" if name in status["waited_for"] else STYLES.get(state, "")
        rows.add_row(*(Text(_plain(cell), style) for cell in (name, state, *cells)))
    lines = [Text(_plain(line)) for line in _lines(status)]
    return Group(*lines, rows) if status["devices"] else Group(*lines)


#: Of a row, by the device's state; one that is waited for is yellow.
STYLES = {"quarantined": "red", "lost": "red", "late": "yellow", "finished": "dim"}


def _lines(status: Status) -> list[str]:
    """The run as a whole, in words."""
    tested, rate, loss, last = (status.get(name) for name in ("tested", "rate", "loss", "last_step"))
    found = [
        f"run {status['run']} of edgekit {status['edgekit']}, begun {_ago(status['now'] - status['began'])} ago",
        f"{100 * status['progress']:.1f} % done: steps {status['steps']}, rounds {status['rounds']}, "
        f"images {status['images']}" + ("" if last is None else f"; the last step {_ago(status['now'] - last)} ago"),
    ]
    figures = [] if loss is None else [f"loss {loss:.3f}"]
    if rate is not None:
        figures.append(f"learning rate {rate:.3g}")
    if tested is not None:
        figures.append(f"{tested['accuracy']:.2f} % right in the test after epoch {tested['epoch']}")
    if figures:
        found.append(", ".join(figures))
    if status["errors"]:
        errors = ", ".join(f"{n} of code {code}" for code, n in status["errors"].items())
        found.append(f"errors that devices were told: {errors}")
    if status["joining"]:
        expected = status.get("devices_expected")
        more = "" if expected is None else f"; {max(expected - len(status['joining']), 0)} more to come"
        found.append(f"waiting to begin: {', '.join(status['joining'])}{more}")
    if status["waited_for"]:
        found.append(f"waited for: {', '.join(status['waited_for'])}")
    return found


def _plain(text: str) -> str:
    """`text`, which came over the network, without what would steer a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _size(n: float) -> str:
    return f"{n} B" if n < 1000 else f"{n / 1e3:.1f} kB" if n < 1e6 else f"{n / 1e6:.1f} MB"


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
