"""Saves: states of a run in a folder, by label. Those of a server and of its devices that have one label fit together.

::

    DIR/checkpoint/000012.state    see `edgekit.statefile`

A new save stands beside the one before until it is confirmed: until both sides have it. So there is always one that
both have.
"""

import os
import re
from typing import Dict, List, Optional

from edgekit import statefile, tensorfile
from edgekit.errors import PayloadError, UsageError
from edgekit.statefile import State

FOLDER = "checkpoint"
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

    def __init__(self, folder: Optional[str]) -> None:
        self._folder = None if folder is None else os.path.join(folder, FOLDER)
        self._memory: Dict[int, bytes] = {}
        self.labels: List[int] = [] if folder is None else found(folder)
        if self._folder is not None:
            tensorfile.make_folder(self._folder)

    def write(self, label: int, state: State) -> None:
        """Keeps `state` beside what there is. UsageError where it cannot be written; what there was stays."""
        data = statefile.dumps(state)
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
            return statefile.loads(self._memory[label])
        path = self._path(label)
        try:
            with open(path, "rb") as file:
                return statefile.loads(file.read())
        except (OSError, PayloadError) as error:
            raise UsageError("{} cannot be gone on from: {}".format(path, error)) from None

    def confirm(self, label: int) -> None:
        """Both sides have `label`: all others go."""
        for other in [each for each in self.labels if each != label]:
            self.drop(other)

    def drop(self, label: int) -> None:
        """Loses the save of `label`, where there is one."""
        self._memory.pop(label, None)
        if label in self.labels and self._folder is not None:
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
            with open(path + ".new", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".new", path)
        except OSError as error:
            if os.path.exists(path + ".new"):
                os.remove(path + ".new")
            told = "{} cannot be written: {}; the save before it is still there"
            raise UsageError(told.format(path, error.strerror)) from None
