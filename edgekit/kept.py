"""Kept: the folder that --out names. It is looked at before a run begins, and written all through it.

::

    DIR/*.safetensors        the halves as they were last
    DIR/best/*.safetensors   those of the best test
"""

import os
import shutil
import tempfile
import time
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np

from edgekit import saves, tensorfile
from edgekit.errors import UsageError

BEST = "best"
#: What a half, or the codec's tables, may be called.
HALVES = ("back.safetensors", "front.safetensors", "tables.safetensors")
#: So many times the halves must fit: the last ones, the best ones, and either once more while they are written.
TIMES = 4
#: Seconds from one writing to the next where no test asks for one, and at least so many times what a writing takes.
EVERY_S = 60.0
TIMES_AS_LONG = 20.0


#: Their paths in the folder.
NAMES = (*HALVES, *(os.path.join(BEST, name) for name in HALVES))


def halves(folder: str) -> List[str]:
    """The halves that `folder` and its "best" hold, as paths in it."""
    return [name for name in NAMES if os.path.exists(os.path.join(folder, name))]


def size_of(folder: str) -> int:
    """The bytes of all halves together that `folder`, a bundle's too, holds."""
    return sum(os.path.getsize(os.path.join(folder, name)) for name in halves(folder))


def check_new(folder: str, overwrite: bool, resume: bool = False) -> None:
    """UsageError where `folder` holds halves or saves of an earlier run, unless that is lost by `overwrite`, or goes on
    by `resume`, for which its saves are needed.
    """
    saved, found = saves.found(folder), halves(folder)
    if overwrite or (resume and saved) or not (saved or found):
        return
    told = "--out {}: it holds the halves of an earlier run ({}): choose another folder, or --overwrite to lose them"
    told = told.format(folder, ", ".join(found) or saves.FOLDER)
    raise UsageError(told + (", or --resume to go on with it" if saved else "; it has no saves to go on from"))


def check_room(folder: str, n_bytes: int) -> None:
    """Creates `folder`; UsageError where it cannot be, or be written to, or has no room for halves of `n_bytes`."""
    tensorfile.make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise UsageError("--out {} cannot be written to: {}; choose another".format(folder, error.strerror)) from None
    free = shutil.disk_usage(folder).free
    if free < TIMES * n_bytes:
        told = "--out {}: {:.1f} MB are free there, expected {} times the {:.1f} MB of the halves; make room there"
        raise UsageError(told.format(folder, free / 1e6, TIMES, n_bytes / 1e6))


class Kept:
    """The folder `path`, for halves of about `n_bytes` together. UsageError as of `check_new` and `check_room`.

    With `overwrite`, halves of an earlier run stay until the first of this one are written; with `resume` they are of
    this run.
    """

    def __init__(self, path: str, n_bytes: int = 0, overwrite: bool = False, resume: bool = False) -> None:
        check_new(path, overwrite, resume)
        check_room(path, n_bytes)
        tensorfile.make_folder(os.path.join(path, BEST))
        self._path = path
        self._fresh = resume
        self._due = time.monotonic() + EVERY_S

    @property
    def due(self) -> bool:
        """Whether the last writing was so long ago that another is wanted."""
        return time.monotonic() >= self._due

    def write(
        self, arrays: Dict[str, Dict[str, np.ndarray]], best: bool, said: Optional[Dict[str, Dict[str, str]]] = None
    ) -> None:
        """Writes arrays by name to NAME.safetensors, and to "best" if they are that: all of them, or none.

        `said`: what a file says of itself besides. UsageError when they cannot be written; what was there stays.
        """
        began = time.monotonic()
        written = []  # type: List[Tuple[str, str]]
        try:
            for path, name in self._files(arrays, best):
                written.append((path + ".new", path))
                with open(path + ".new", "wb") as file:
                    file.write(tensorfile.dumps(arrays[name], (said or {}).get(name)))
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            for new, _ in written:
                if os.path.exists(new):
                    os.remove(new)
            told = "{} cannot be written: {}; what was kept before is still there"
            raise UsageError(told.format(written[-1][1], error.strerror)) from None
        finally:
            ended = time.monotonic()
            self._due = ended + max(EVERY_S, TIMES_AS_LONG * (ended - began))
        if not self._fresh:
            for name in halves(self._path):
                os.remove(os.path.join(self._path, name))
            self._fresh = True
        for new, path in written:
            os.replace(new, path)

    def _files(self, arrays: Dict[str, Dict[str, np.ndarray]], best: bool) -> Iterator[Tuple[str, str]]:
        """(path, name) of every file to be written."""
        for folder in (self._path, *([os.path.join(self._path, BEST)] if best else [])):
            for name in arrays:
                yield os.path.join(folder, name + ".safetensors"), name
