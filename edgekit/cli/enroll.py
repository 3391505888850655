"""edgekit enroll"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import options
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.identity.register import Entry


@click.group()
def enroll() -> None:
    """Say who may be on the line: certificates for the server and its devices, for mutual TLS.

    A private key never leaves the machine that made it: a device sends a request, and the server's CA signs it. The
    name in a device's certificate is its name in training.

    \b
    server   edgekit enroll init ca --host 10.0.0.2              a CA, and the server's certificate
    device   edgekit enroll request --name nano -o me            a key, and me/device.csr to take to the server
    server   edgekit enroll sign ca device.csr -o signed         device.pem and ca.pem to bring back to me/
    server   edgekit serve bundle --listen 0.0.0.0:50051 --identity ca
    device   edgekit run bundle --server 10.0.0.2:50051 --identity me

    `edgekit deploy --identity ca` does the device's part over ssh. Details: docs/identity.md.
    """


days = click.option("--days", type=click.IntRange(1, 3650), help="Days that the certificate holds.")
folder = click.argument("folder", metavar="DIR")


@enroll.command()
@folder
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME_OR_IP",
    help="What devices reach the server under; once for each. Its own host name and loopback are always there.",
)
@days
@options.as_json
def init(folder: str, hosts: tuple[str, ...], days: int | None, as_json: bool) -> None:
    """Make the server's folder DIR: its CA, and the server's certificate.

    In a folder that has a CA it stays, and so do the devices' certificates; the server's certificate is made anew, for
    the hosts that are named now. Start the server again then.
    """
    from edgekit.identity import authority

    named = authority.init(folder, hosts, days or authority.SERVER_DAYS)
    if as_json:
        options.print_json({"folder": folder, "hosts": named})
        return
    click.echo(f"{folder}: a certificate for {', '.join(named)}")
    click.echo(f"next: edgekit serve BUNDLE --listen 0.0.0.0:50051 --identity {folder}", err=True)


@enroll.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.pass_context
def request(context: click.Context) -> None:
    """Make this device's key and a certificate request; the same as `python -m edgekit.runtime.enroll`."""
    from edgekit.runtime.enroll import main

    context.exit(main(context.args, program="edgekit enroll request"))


@enroll.command()
@folder
@click.argument("request", metavar="REQUEST")
@click.option("-o", "--out", metavar="OUT", help="Folder for device.pem and ca.pem (default: that of REQUEST).")
@days
@options.as_json
def sign(folder: str, request: str, out: str | None, days: int | None, as_json: bool) -> None:
    """Sign the certificate request in file REQUEST, after making sure that it comes from the device that it names."""
    from edgekit.identity import authority, layout
    from edgekit.tensorfile import make_folder

    try:
        text = Path(request).read_bytes()
    except OSError as error:
        raise UsageError(f"{request} cannot be read: {error.strerror}") from None
    out = out if out is not None else os.path.dirname(request) or os.curdir
    make_folder(out)
    signed = authority.sign(folder, text, request, days or authority.DEVICE_DAYS)
    layout.write(out, "device.pem", signed.certificate)
    layout.write(out, "ca.pem", signed.ca)
    if as_json:
        options.print_json({**_shown(signed.entry), "out": out})
        return
    click.echo(_line(signed.entry))
    click.echo(f"next: bring {out}/device.pem and {out}/ca.pem to the device, beside its device.key", err=True)


@enroll.command()
@folder
@click.argument("name", metavar="NAME")
def revoke(folder: str, name: str) -> None:
    """Revoke every certificate of the device NAME; a server that runs ends its streams within seconds."""
    from edgekit.identity import authority

    count = authority.revoke(folder, name)
    click.echo(f"{count} certificate{'s' * (count > 1)} of {name} revoked")


@enroll.command("list")
@folder
@options.as_json
def listed(folder: str, as_json: bool) -> None:
    """List every certificate that was signed: name, serial number, from, until, revoked."""
    from edgekit.identity import authority

    entries = authority.entries(folder)
    if as_json:
        options.print_json({"devices": [_shown(entry) for entry in entries]})
        return
    for entry in entries:
        click.echo(_line(entry))
    if not entries:
        click.echo("no device is enrolled: `edgekit enroll sign` signs its request", err=True)


def _shown(entry: "Entry") -> dict[str, object]:
    return {
        "name": entry.name, "serial": entry.serial, "from": entry.begins, "until": entry.ends, "revoked": entry.revoked,
    }  # fmt: skip


def _line(entry: "Entry") -> str:
    from edgekit.identity.register import day

    state = "" if entry.revoked is None else f", revoked {day(entry.revoked)}"
    return f"{entry.name}: from {day(entry.begins)} until {day(entry.ends)}{state}, serial {entry.serial}"
