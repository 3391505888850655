"""The part of `emulator` that keeps the accounts: handles, contexts of threads, codes, calls failing on purpose."""

import importlib.machinery
import itertools
import threading
import types
from typing import Any


class Code(Exception):
    """The code that a call ends with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Calls:
    """One process's pyACL. `bytes_api` is that of CANN 5.1 on; `on_host` is False on a board whose process runs there.

    `fail_at` is the number of the call, counted from 0, that fails with `fail_with` although all is well.
    """

    def __init__(self, bytes_api: bool = True, chip: str = "Ascend310", on_host: bool = False) -> None:
        self.bytes_api, self.chip, self.on_host = bytes_api, chip, on_host
        self.calls: list[str] = []
        self.codes: list[int] = []
        self.fail_at, self.fail_with = -1, 500000
        self.state = "new"
        self.devices = 0
        kinds = ("context", "description", "model", "device memory", "host memory", "data buffer", "dataset")
        self.live: dict[str, dict[int, Any]] = {kind: {} for kind in kinds}
        self._handles = itertools.count(0x1000, 0x10)
        self._thread = threading.local()
        #: Pointer -> the bytes or array that it shows.
        self.pinned: dict[int, Any] = {}

    def left(self) -> dict[str, int]:
        """What is allocated now, by kind."""
        counts = {kind: len(things) for kind, things in self.live.items()} | {"device": self.devices}
        return {kind: count for kind, count in counts.items() if count}

    def module(self) -> types.ModuleType:
        """What `import acl` gives."""
        names = [name for name in dir(self) if name.startswith("acl_")]
        spoken = [name for name in names if self.bytes_api or not name.endswith(("bytes_to_ptr", "ptr_to_bytes"))]
        root = types.ModuleType("acl")
        root.__spec__ = importlib.machinery.ModuleSpec("acl", None)
        for area in ("rt", "mdl", "util"):
            setattr(root, area, types.SimpleNamespace())
        for name in spoken:
            parts = name.split("_", 2)
            if parts[1] in ("rt", "mdl", "util"):
                setattr(getattr(root, parts[1]), parts[2], self._wrap(name))
            else:
                setattr(root, name[len("acl_") :], self._wrap(name))
        return root

    def _wrap(self, name: str) -> Any:
        function = getattr(self, name)
        gives, *needs = function.__doc__.split(", ")

        def call(*arguments: Any) -> Any:
            number = len(self.calls)
            self.calls.append(name)
            value, code = None, 0
            try:
                if number == self.fail_at and "free" not in needs:
                    raise Code(self.fail_with)
                if "any time" not in needs and self.state != "initialised":
                    raise Code(100001)
                if "context" in needs:
                    self._current()
                value = function(*arguments)
                if number == self.fail_at:
                    raise Code(self.fail_with)
            except Code as failure:
                value, code = None, failure.code
                self.codes.append(code)
            return {"code": code, "pair": (0 if value is None else value, code), "value": value}[gives]

        return call

    def _new(self, kind: str, thing: Any) -> int:
        handle = next(self._handles)
        self.live[kind][handle] = thing
        return handle

    def _get(self, kind: str, handle: Any, code: int = 200005) -> Any:
        if handle not in self.live[kind]:
            raise Code(code)
        return self.live[kind][handle]

    def _free(self, kind: str, handle: int) -> None:
        self._get(kind, handle)
        del self.live[kind][handle]

    def _current(self) -> int:
        context: int = getattr(self._thread, "context", 0)
        if context not in self.live["context"]:
            raise Code(107002)
        return context
