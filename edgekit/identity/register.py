"""The register: every certificate that was signed for a device, and whether it still counts."""

import hashlib
import json
import os
import ssl
import time
from typing import Any, NamedTuple

from edgekit.errors import IdentityError, UsageError
from edgekit.identity import layout


class Entry(NamedTuple):
    """One certificate. Times are seconds since 1970."""

    name: str
    #: Hex.
    serial: str
    #: sha256 of the certificate (DER), and of its public key: hex.
    certificate: str
    key: str
    begins: float
    ends: float
    #: When it was revoked; None where it was not.
    revoked: float | None = None

    def counts(self, now: float) -> bool:
        return self.revoked is None and now < self.ends


class Register:
    """The entries of one server, oldest first; each change is written at once."""

    def __init__(self, folder: str, entries: list[Entry]) -> None:
        self._folder = folder
        self.entries = entries

    def add(self, entry: Entry) -> None:
        self._keep([*self.entries, entry])

    def revoke(self, name: str) -> int:
        """How many certificates of `name` it revoked; UsageError where there are none that count."""
        now = time.time()
        count = sum(entry.name == name and entry.revoked is None for entry in self.entries)
        if not count:
            known = ", ".join(sorted({entry.name for entry in self.entries if entry.revoked is None})) or "nobody"
            raise UsageError(f"no certificate of {name!r} is left to revoke; enrolled: {known}")
        self._keep([e._replace(revoked=now) if e.name == name and e.revoked is None else e for e in self.entries])
        return count

    def find(self, certificate: str) -> Entry | None:
        """The entry of a certificate, by its sha256 in hex."""
        return next((entry for entry in self.entries if entry.certificate == certificate), None)

    def check_new(self, name: str, key: str) -> None:
        """IdentityError when a certificate of `name` for the public key of this sha256 must not be signed."""
        now = time.time()
        for entry in self.entries:
            if entry.key == key and entry.revoked is not None:
                raise IdentityError(
                    f"the key of this request was revoked as {entry.name}: make a new one on the device, in a new "
                    "folder (`edgekit enroll request`)"
                )
            if entry.name == name and entry.key != key and entry.counts(now):
                raise IdentityError(
                    f"{name} has a certificate for another key, until {day(entry.ends)}: give this device another "
                    f"--name, or, where it takes the place of that one, `edgekit enroll revoke` {name} first"
                )

    def _keep(self, entries: list[Entry]) -> None:
        text = json.dumps([entry._asdict() for entry in entries], indent=1) + "\n"
        layout.write(self._folder, layout.REGISTER, text.encode())
        self.entries = entries


def open_register(folder: str) -> Register:
    """The register in `folder`; IdentityError when it is missing or damaged."""
    path = os.path.join(folder, layout.REGISTER)
    try:
        return Register(folder, [_entry(value) for value in json.loads(layout.read(folder, layout.REGISTER))])
    except (ValueError, TypeError, RecursionError) as error:
        raise IdentityError(f"{path} does not parse: {error!r:.200}; bring it back from a backup") from None


def fingerprint(pem: bytes) -> str:
    """The sha256 of a certificate in PEM, by which the register knows it."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))).hexdigest()


def day(seconds: float) -> str:
    """The date of a time, "2027-11-29"."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _entry(value: Any) -> Entry:
    entry = Entry(**value)
    texts = (entry.name, entry.serial, entry.certificate, entry.key)
    times = (entry.begins, entry.ends, 0.0 if entry.revoked is None else entry.revoked)
    if not all(type(text) is str for text in texts) or not all(type(each) in (int, float) for each in times):
        raise ValueError(f"{value!r:.100} is no entry")
    return entry
