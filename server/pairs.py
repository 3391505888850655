"""Pairs: the two halves as they were at the last test, and at the best one, kept in a folder."""

import os
from collections.abc import Sequence
from typing import Any

from edgekit import tensorfile
from edgekit.class_names import said_of
from edgekit.codecs.base import Arrays
from edgekit.tensorfile import make_folder

#: Where the best pair lies in the folder of the last one.
BEST = "best"


class Pairs:
    """Writes ``back.safetensors``, and where front halves are in step ``front`` and ``tables`` too.

    The back half says the names of the classes that it tells apart, where `classes` has them.
    """

    def __init__(self, folder: str, classes: Sequence[str] = ()) -> None:
        self._folder = folder
        self._said = said_of(classes)
        make_folder(os.path.join(folder, BEST))

    def keep(self, back: Arrays, front: Arrays | None, tables: Arrays, best: bool) -> None:
        """Keeps a pair as the last one, and as the best one if it is that; each file whole or not at all."""
        files: dict[str, Any] = {"back": back, **({} if front is None else {"front": front, "tables": tables})}
        for folder in (self._folder, *([os.path.join(self._folder, BEST)] if best else [])):
            for name, arrays in files.items():
                said = self._said if name == "back" else {}
                tensorfile.write(os.path.join(folder, f"{name}.safetensors"), arrays, said)
