"""The authority: makes the server's folder, and signs what devices ask for."""

import contextlib
import fcntl
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgekit.errors import IdentityError, UsageError
from edgekit.identity import layout
from edgekit.identity.certificates import (
    certificate_pem,
    key_fingerprint,
    key_pem,
    load_certificate,
    load_key,
    load_request,
    make_ca,
    make_device,
    make_server,
    new_key,
)
from edgekit.identity.register import Entry, fingerprint, open_register
from edgekit.tensorfile import make_folder

#: Days that certificates hold: of the CA, which devices keep; of servers; of devices.
CA_DAYS, SERVER_DAYS, DEVICE_DAYS = 3650, 825, 365
#: What a server's certificate always names: the machine itself.
OWN = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Signed(NamedTuple):
    """A device's certificate and the CA's, as PEM, and its entry in the register."""

    entry: Entry
    certificate: bytes
    ca: bytes


def init(folder: str, hosts: Sequence[str], days: float = SERVER_DAYS) -> list[str]:
    """Makes the CA in `folder`, where there is none, and a server's certificate anew; returns the hosts in it.

    UsageError for a host that is none.
    """
    for host in hosts:
        if not _is_host(host):
            raise UsageError(f"--host {host!r}: expected a name or an IP address, without a port")
    named = [host for host in dict.fromkeys([*hosts, socket.gethostname(), *OWN]) if _is_host(host)]
    make_folder(folder)
    with _locked(folder):
        if not os.path.exists(os.path.join(folder, layout.CA)):
            key = new_key()
            layout.write(folder, layout.CA_KEY, key_pem(key))
            layout.write(folder, layout.REGISTER, b"[]\n")
            # Last: a folder that has it is complete.
            made = make_ca(key, f"edgekit {socket.gethostname()}"[:64], CA_DAYS)
            layout.write(folder, layout.CA, certificate_pem(made))
        ca_key = load_key(layout.read(folder, layout.CA_KEY), layout.CA_KEY)
        issuer = load_certificate(layout.read(folder, layout.CA), layout.CA)
        key = new_key()
        server = make_server(issuer, ca_key, key.public_key(), named, days)
        layout.write(folder, layout.SERVER_KEY, key_pem(key))
        layout.write(folder, layout.SERVER, certificate_pem(server))
    return named


def sign(folder: str, request: bytes, what: str, days: float = DEVICE_DAYS, only: str | None = None) -> Signed:
    """The certificate for `request`, which is entered in the register; `what` names the request in errors.

    IdentityError when it is no request, when its name is not `only`, where that is given, or is another device's, and
    when its key was revoked.
    """
    name, key = load_request(request, what)
    if only is not None and name != only:
        raise IdentityError(f"{what} asks for a certificate of {name!r}, expected {only!r}: nothing was signed")
    with _locked(folder):
        register = open_register(folder)
        register.check_new(name, key_fingerprint(key))
        ca_pem = layout.read(folder, layout.CA)
        issuer = load_certificate(ca_pem, layout.CA)
        made = make_device(issuer, load_key(layout.read(folder, layout.CA_KEY), layout.CA_KEY), key, name, days)
        pem = certificate_pem(made)
        entry = Entry(
            name, f"{made.serial_number:x}", fingerprint(pem), key_fingerprint(key),
            made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp(),
        )  # fmt: skip
        register.add(entry)
    return Signed(entry, pem, ca_pem)


def revoke(folder: str, name: str) -> int:
    """How many certificates of the device `name` it revoked; UsageError where there were none."""
    with _locked(folder):
        return open_register(folder).revoke(name)


def entries(folder: str) -> list[Entry]:
    """Every certificate that was signed, oldest first."""
    return open_register(folder).entries


def ca(folder: str) -> str:
    """The CA's certificate, as PEM."""
    return layout.read(folder, layout.CA).decode("ascii", "replace")


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_NAME.fullmatch(text)) and len(text) <= 253
    return True


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One command at a time changes `folder`."""
    try:
        lock = open(os.path.join(folder, "lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise IdentityError(
            f"{folder} cannot be written: {error.strerror}; `edgekit enroll init DIR` makes a server's folder"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
