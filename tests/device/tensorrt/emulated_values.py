"""The classes of the emulated TensorRT that are the same in every version, and what stands for its crashes."""

import enum
import weakref

import numpy as np


class Misuse(AssertionError):
    """What the real library answers with a crash, or with wrong numbers."""


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: enum.IntEnum, msg: str) -> None:
        raise NotImplementedError


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class Weights:
    def __init__(self, a: np.ndarray) -> None:
        if not a.flags.c_contiguous:
            raise ValueError("Weights: not C-contiguous")
        self._size = a.size
        # The library keeps the address alone.
        self._array = weakref.ref(a)

    @property
    def size(self) -> int:
        return self._size

    def numpy(self) -> np.ndarray:
        array = self._array()
        if array is None:
            raise Misuse("the array behind these weights was freed")
        return array


class Dims(tuple):  # type: ignore[type-arg]
    pass


class IHostMemory:
    """The real one is a buffer; `bytes` of it is all that is needed of that."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data

    @property
    def nbytes(self) -> int:
        return len(self._data)


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text
