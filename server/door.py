"""The door: mutual TLS, whose certificate a stream came with, and whether it still counts.

gRPC lets in who has a certificate of the CA. Here each is looked up in the register that `edgekit enroll` keeps, when
its stream begins and whenever the file changes: a stream of a revoked device ends with an error, in the midst of a run.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from edgekit.errors import IdentityError
from edgekit.identity import layout
from edgekit.identity.certificates import load_certificate
from edgekit.identity.register import Register, day, fingerprint, open_register

#: Seconds between two looks at the register's file, and those that a revoked stream has to take its error.
LOOK_S, GRACE_S = 1.0, 5.0

Event = dict[str, Any]


class Anybody:
    """One stream, in the clear: whoever it is of is let in."""

    def __init__(self, context: Any) -> None:
        self._context = context
        #: The session that it has; None before hello.
        self.session: int | None = None
        #: Why it is not welcome any more; empty while it is.
        self.refused = ""

    def alive(self) -> bool:
        """Whether anyone waits for an answer to this stream."""
        return not self.refused and bool(self._context.is_active())

    def check(self) -> None:
        """IdentityError when the stream is to end."""
        if self.refused:
            raise IdentityError(self.refused)

    def claim(self, name: object) -> None:
        """IdentityError when it is not the device `name`."""
        return None


class Guest(Anybody):
    """One stream by TLS, and whose certificate it came with; `end` ends a session, `tell` hears why it is refused."""

    def __init__(self, context: Any, end: Callable[[int], None], tell: Callable[[Event], None]) -> None:
        super().__init__(context)
        told = context.auth_context()
        self.name: str = told["x509_common_name"][0].decode("utf-8", "replace")
        #: The sha256 of the certificate.
        self.certificate = fingerprint(told["x509_pem_cert"][0])
        self._end, self._tell = end, tell

    def claim(self, name: object) -> None:
        if name != self.name:
            self.refuse(
                f"the device says that it is {str(name)[:100]!r}, its certificate that it is {self.name!r}: leave "
                "--name out, or enroll under that name"
            )
        self.check()

    def refuse(self, reason: str) -> None:
        """From now on it is not welcome, which is told; nothing happens when it is not already."""
        if reason and not self.refused:
            self.refused = reason
            self._tell({"event": "refused", "device": self.name, "reason": reason})

    def turn_out(self, reason: str) -> None:
        """Ends its session now, and its stream with the reason; without one, when the device does not come for it."""
        self.refuse(reason)
        if self.session is not None:
            self._end(self.session)
        timer = threading.Timer(GRACE_S, self._context.cancel)
        timer.daemon = True
        timer.start()


class Door:
    """The identity of the server in `folder`; `on_event` hears who was refused, from any thread."""

    def __init__(self, folder: str, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self._folder = folder
        self._path = os.path.join(folder, layout.REGISTER)
        self.on_event = on_event
        self._lock = threading.Lock()
        self._guests: set[Guest] = set()
        self._seen = self._stamp()
        self._register = open_register(folder)
        self._stopped = threading.Event()
        # Read now, so that what is missing shows before anything listens.
        self._ca = layout.read(folder, layout.CA)
        self._pair = (layout.read(folder, layout.SERVER_KEY), layout.read(folder, layout.SERVER))
        ends = load_certificate(self._pair[1], layout.SERVER).not_valid_after_utc.timestamp()
        if time.time() >= ends:
            raise IdentityError(
                f"{folder}/{layout.SERVER} ended on {day(ends)}: `edgekit enroll init {folder}`, with each --host that "
                "it had, makes a new one; devices keep theirs"
            )

    def bind(self, server: Any, address: str) -> int:
        """The port that `server` listens at, for clients with a certificate of the CA; RuntimeError as from gRPC."""
        credentials = grpc.ssl_server_credentials([self._pair], self._ca, require_client_auth=True)
        port: int = server.add_secure_port(address, credentials)
        threading.Thread(target=self._watch, name="door", daemon=True).start()
        return port

    @contextlib.contextmanager
    def entered(self, context: Any, end: Callable[[int], None]) -> Iterator[Guest]:
        """The guest behind a stream, while it is open; `end` ends its session, from another thread."""
        self._look()
        guest = Guest(context, end, lambda event: self.on_event(event))
        with self._lock:
            reason = _refusal(guest, self._register)
            self._guests.add(guest)
        guest.refuse(reason)
        try:
            yield guest
        finally:
            with self._lock:
                self._guests.discard(guest)

    def close(self) -> None:
        """Looks at the register no more."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_S):
            self._look()
            with self._lock:
                found = [(guest, _refusal(guest, self._register)) for guest in self._guests if not guest.refused]
            for guest, reason in found:
                if reason:
                    guest.turn_out(reason)

    def _look(self) -> None:
        """Reads the register again where its file has changed; one that cannot be read is told, the last one counts."""
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            try:
                self._register = open_register(self._folder)
                return
            except IdentityError as error:
                told = str(error)
        self.on_event({"event": "warned", "device": None, "warning": f"the register was not read again: {told}"})

    def _stamp(self) -> tuple[int, int, int]:
        """What changes whenever the register is written."""
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0, 0)
        return found.st_ino, found.st_mtime_ns, found.st_size


def _refusal(guest: Guest, register: Register) -> str:
    """Why the register does not have `guest` in; empty where it does."""
    entry = register.find(guest.certificate)
    if entry is None:
        return f"the certificate of {guest.name} is not in this server's register: have it signed here"
    if entry.revoked is not None:
        return (
            f"the certificate of {guest.name} was revoked on {day(entry.revoked)}: ask who runs the server; a new one "
            "needs a new key (`edgekit enroll request` in a new folder)"
        )
    return ""
