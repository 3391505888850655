"""Handshakes that failed: gRPC writes the reason to standard error and tells nobody; here it becomes an event."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

#: gRPC's line: OpenSSL's name of the error, and its words.
_FAILED = re.compile(rb"Handshake failed with (?:fatal )?error \w+: error:\w+:SSL routines:\w*:(\w+)(?:: (.*))?")
#: OpenSSL's name -> what it means here.
MEANINGS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no certificate: a device that is not enrolled",
    "WRONG_VERSION_NUMBER": "it spoke no TLS: a device without --identity",
    "HTTP_REQUEST": "it spoke no TLS: a device without --identity",
    "BAD_PACKET_LENGTH": "it does not trust this server: another CA, or another host name",
}
#: Seconds in which a reason is told once: a client tries again every second.
QUIET_S = 10.0


class Handshakes:
    """Between its begin and end, lines of gRPC's on file descriptor 2 about handshakes go to `on_event`.

    Everything else goes on to where standard error went before. A context manager, of a whole process.
    """

    def __init__(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._on_event = on_event
        self._told: dict[str, float] = {}

    def __enter__(self) -> "Handshakes":
        sys.stderr.flush()
        self._before = os.dup(2)
        self._end, begin = os.pipe()
        os.dup2(begin, 2)
        os.close(begin)
        self._reader = threading.Thread(target=self._read, name="handshakes", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr.flush()
        os.dup2(self._before, 2)  # closes the pipe's beginning, which ends the reader
        self._reader.join()
        os.close(self._before)

    def _read(self) -> None:
        with open(self._end, "rb") as lines:
            for line in lines:
                found = _FAILED.search(line)
                if found is None:
                    os.write(self._before, line)
                else:
                    self._tell(reason(found.group(1).decode(), (found.group(2) or b"").decode("utf-8", "replace")))

    def _tell(self, told: str) -> None:
        now = time.monotonic()
        if now - self._told.get(told, -QUIET_S) >= QUIET_S:
            self._told[told] = now
            self._on_event({"event": "refused", "device": None, "reason": f"a handshake failed: {told}"})


def reason(name: str, words: str) -> str:
    """OpenSSL's error in words."""
    if name == "CERTIFICATE_VERIFY_FAILED":
        return f"its certificate does not hold: {words}"
    return MEANINGS.get(name, name.lower().replace("_", " "))
