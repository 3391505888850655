"""The compiled library for this machine, loaded by ctypes: from its file, or out of the zip that Python runs from."""

import ctypes
import os
import pkgutil
import platform
import sys
import tempfile
from functools import lru_cache
from typing import Any

import numpy as np

from edgekit.errors import BackendError

#: EDGEKIT_ABI in coder.h.
ABI = 5
#: Machines that there is a library for, as `platform.machine` names them.
MACHINES = ("x86_64", "aarch64")
#: The start of an array's memory, whatever its length.
_Start = ctypes.c_char * 0


def file_name(machine: str) -> str:
    """The name of the library for `machine`, in this folder."""
    return "libedgekit_coder-{}.so".format(machine)


class Array:
    """The ctypes argument "contiguous array of `dtype`": ArgumentError for any other.

    `numpy.ctypeslib.ndpointer` is the same, but takes three times as long, for every array of every call.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = np.dtype(dtype)

    def from_param(self, array: np.ndarray) -> Any:
        """What ctypes passes for `array`: called by ctypes."""
        flags = array.flags
        if array.dtype != self._dtype or not flags.c_contiguous:
            raise TypeError("{} array, expected a contiguous one of {}".format(array.dtype, self._dtype))
        if flags.writeable:
            return _Start.from_buffer(array.data)
        return ctypes.c_void_p(array.ctypes.data)


@lru_cache(maxsize=None)
def array(dtype: str) -> Array:
    """The argument for arrays of `dtype`."""
    return Array(dtype)


class Function:
    """A function of the library with arguments of these types of ctypes. It is found when it is first called."""

    def __init__(self, name: str, *arguments: Any, result: Any = None) -> None:
        self._name, self._arguments, self._result = name, arguments, result
        self._found: Any = None

    def __call__(self, *values: Any) -> Any:
        if self._found is None:
            found = getattr(load(), self._name)
            found.argtypes, found.restype = self._arguments, self._result
            self._found = found
        return self._found(*values)


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL:
    """The library, loaded once. BackendError that says why where it does not load."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES:
        told = "there are compiled kernels for Linux on {}, this is {} on {}"
        raise BackendError(told.format(" and ".join(MACHINES), sys.platform, machine))
    name = file_name(machine)
    try:
        library = _opened(name)
        abi = library.edgekit_abi()
    except (OSError, AttributeError) as error:
        raise BackendError("{} does not load: {}".format(name, error)) from None
    if abi != ABI:
        told = "{} has interface {}, expected {}: install edgekit anew, or build it again by `make native`"
        raise BackendError(told.format(name, abi, ABI))
    return library


def _opened(name: str) -> ctypes.CDLL:
    path = os.path.join(os.path.dirname(__file__), name)
    if os.path.isfile(path):
        return ctypes.CDLL(path)
    content = pkgutil.get_data(__package__, name)
    # The system loads a library from a file alone. What is loaded stays when its file is gone.
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(content or b"")
        file.flush()
        return ctypes.CDLL(file.name)
