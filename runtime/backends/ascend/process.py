"""pyACL in this process: initialised once, one device and context while models use them, one finalize at the end.

aclInit works once per process, also after aclFinalize (`aclInitFlag` is never cleared: acl.cpp of CANN 5), so
finalize is left to the end of the process.
"""

import threading
import weakref
from contextlib import ExitStack
from typing import Any, Optional

from edgekit.runtime.backends.ascend import calls
from edgekit.runtime.backends.ascend.calls import Acl

#: Edge boards have one.
DEVICE = 0
_REPEATED = 100002
_HOST = 1


class Process:
    """One process's pyACL. `enter` before anything is done in the context, in the thread that does it."""

    def __init__(self, acl: Acl) -> None:
        self.acl = acl
        self._lock = threading.Lock()
        self._users = 0
        self._device = ExitStack()
        self._context: Any = None
        #: True when host and device have memories of their own, and copies go between them.
        self.on_host = False
        code = acl.number("init")
        if code == 0:
            # Runs when the process ends, after every model that is still there: those are younger.
            weakref.finalize(self, acl.do, "finalize")
        elif code != _REPEATED:  # whoever else initialised it will finalize it
            raise acl.error("init", (), code)

    def attach(self) -> None:
        """Takes the device for one more user; the first opens it."""
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
        """Ends what `attach` began; the last closes the device."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._context = None
                self._device.close()

    def enter(self) -> None:
        """Makes the context the running thread's: CANN keeps one per thread."""
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
