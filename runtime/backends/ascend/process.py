"""pyACL in this process: initialised once and finalised at its end; device and context are open while models are.

aclInit works once per process: even aclFinalize does not allow another (`aclInitFlag` is never cleared: acl.cpp of
CANN 5). So finalize waits for the end of the process.
"""

import threading
import weakref
from contextlib import ExitStack
from typing import Any, Optional

from edgekit.runtime.backends.ascend import calls
from edgekit.runtime.backends.ascend.calls import Acl

#: Edge boards have one device.
DEVICE = 0
_REPEATED = 100002
_HOST = 1


class Process:
    """One process's pyACL. A thread calls `enter` before it does anything with the device."""

    def __init__(self, acl: Acl) -> None:
        self.acl = acl
        self._lock = threading.Lock()
        self._users = 0
        self._device = ExitStack()
        self._context: Any = None
        #: Whether host and device have separate memories, with copies between them.
        self.on_host = False
        code = acl.number("init")
        if code == 0:
            # Runs when the process ends. Models were made later, so those still there are finalised before.
            weakref.finalize(self, acl.do, "finalize")
        elif code != _REPEATED:  # whoever else initialised it will finalize it
            raise acl.error("init", (), code)

    def attach(self) -> None:
        """Counts one more user of the device; the first one opens it."""
        with self._lock:
            if not self._users:
                with ExitStack() as opened:
                    self.acl.do("rt.set_device", DEVICE)
                    opened.callback(self.acl.do, "rt.reset_device", DEVICE)
                    self._context = self.acl.make("rt.create_context", DEVICE)
                    opened.callback(self.acl.do, "rt.destroy_context", self._context)
                    self.on_host = self.acl.make("rt.get_run_mode") == _HOST
                    self._device = opened.pop_all()
            self._users += 1

    def detach(self) -> None:
        """Counts one user less; the last one closes the device."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._context = None
                self._device.close()

    def enter(self) -> None:
        """Makes the context current in the calling thread: CANN keeps one per thread."""
        self.acl.do("rt.set_context", self._context)

    def chip(self) -> Optional[str]:
        """The chip's name, "Ascend310B4"; None where this CANN does not say it."""
        return str(self.acl.handle("get_soc_name")) if self.acl.has("get_soc_name") else None


_process: Optional[Process] = None
_starting = threading.Lock()


def process() -> Process:
    """This process's pyACL, started at the first call; BackendError when CANN is not there or does not start."""
    global _process
    with _starting:
        if _process is None:
            _process = Process(calls.load())
        return _process
