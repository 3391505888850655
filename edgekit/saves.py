"""Saves: states of a run in a folder, by label. Those of a server and of its devices that have one label fit together.

::

    DIR/checkpoint/000012.state    see `edgekit.statefile`

A new save stands beside the one before until it is confirmed: until both sides have it. So there is always one that
both have.
"""

import contextlib
import os
import re
from typing import Dict, List, Optional

from edgekit import statefile, tensorfile
from edgekit.errors import PayloadError, UsageError
from edgekit.statefile import State

FOLDER = "checkpoint"
#: What the name of a file has that is being written; and the number of this form of saves.
NEW, FORMAT = ".new", 1
_NAME = re.compile(r"(\d{6,})\.state")


def found(folder: str) -> List[int]:
    """The labels of the saves that the folder of an earlier run holds, the latest last."""
    try:
        names = os.listdir(os.path.join(folder, FOLDER))
    except OSError:
        return []
    return sorted(int(match.group(1)) for match in map(_NAME.fullmatch, names) if match)


def paths(folder: str) -> List[str]:
    """The files of those saves, as paths in `folder`."""
    return [os.path.join(FOLDER, _file(label)) for label in found(folder)]


def _file(label: int) -> str:
    return "{:06d}.state".format(label)


class Saves:
    """The saves in ``folder/checkpoint``, or in memory where there is no `folder`: those end with the process."""

    def __init__(self, folder: Optional[str], of: str = "device") -> None:
        self._of = of
        self._folder = None if folder is None else os.path.join(folder, FOLDER)
        self._memory: Dict[int, bytes] = {}
        self.labels: List[int] = [] if folder is None else found(folder)
        if self._folder is not None:
            tensorfile.make_folder(self._folder)
            for name in os.listdir(self._folder):
                # Of a process that was killed while it wrote.
                if name.endswith(NEW) and os.path.isfile(os.path.join(self._folder, name)):
                    os.remove(os.path.join(self._folder, name))

    def write(self, label: int, state: State) -> None:
        """Keeps `state` beside what there is. UsageError where it cannot be written; what there was stays."""
        data = statefile.dumps({"format": FORMAT, "of": self._of, "state": state})
        if self._folder is None:
            self._memory[label] = data
        else:
            self._write(label, data)
        self.labels = sorted({*self.labels, label})

    def read(self, label: int) -> State:
        """The state of `label`. UsageError where there is none, or it does not parse."""
        if label not in self.labels:
            raise UsageError("there is no save {}, only {}".format(label, self.labels or "none"))
        if self._folder is None:
            return statefile.loads(self._memory[label])["state"]
        path = self._path(label)
        try:
            with open(path, "rb") as file:
                held = statefile.loads(file.read())
        except (OSError, PayloadError) as error:
            raise UsageError("{} cannot be gone on from: {}".format(path, error)) from None
        said = (held.get("of"), held.get("format")) if isinstance(held, dict) else None
        if said != (self._of, FORMAT) or "state" not in held:
            told = "{} is no save of a {} by this version of edgekit: begin anew, in another folder"
            raise UsageError(told.format(path, self._of))
        return held["state"]

    def confirm(self, label: int) -> None:
        """Both sides have `label`: all others go."""
        for other in [each for each in self.labels if each != label]:
            self.drop(other)

    def drop(self, label: int) -> None:
        """Loses the save of `label`, where there is one."""
        self._memory.pop(label, None)
        if label in self.labels and self._folder is not None:
            # One that stays is no harm: the latest counts.
            with contextlib.suppress(OSError):
                os.remove(self._path(label))
        self.labels = [each for each in self.labels if each != label]

    def clear(self) -> None:
        """Loses all saves."""
        for label in self.labels:
            self.drop(label)

    def _path(self, label: int) -> str:
        assert self._folder is not None
        return os.path.join(self._folder, _file(label))

    def _write(self, label: int, data: bytes) -> None:
        path = self._path(label)
        try:
            # It has what a session is taken up again with: nobody else's to read.
            with open(os.open(path + NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + NEW, path)
            _sync(os.path.dirname(path))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.remove(path + NEW)
            told = "{} cannot be written: {}; the save before it is still there"
            raise UsageError(told.format(path, error.strerror)) from None


def _sync(folder: str) -> None:
    """Returns when the names in `folder` would outlive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
