"""The few calls of NVIDIA's CUDA runtime that TensorRT needs, made through ctypes: boards have no CUDA Python.

Source: https://docs.nvidia.com/cuda/cuda-runtime-api/. The calls and their types are the same from CUDA 10.2 to 13.
"""

import ctypes
import ctypes.util
import glob
import os
from typing import Any, List, Optional, Tuple

import numpy as np

from edgekit.errors import BackendError

#: Values of cudaMemcpyKind.
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
#: Values of cudaDeviceAttr for the compute capability, major and minor.
_MAJOR, _MINOR = 75, 76

_INT_OUT, _POINTER_OUT = ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_void_p)
_SIZE_OUT = ctypes.POINTER(ctypes.c_size_t)
#: Function -> types of its arguments. Each returns a cudaError_t.
SIGNATURES = {
    "cudaGetDeviceCount": (_INT_OUT,),
    "cudaDriverGetVersion": (_INT_OUT,),
    "cudaRuntimeGetVersion": (_INT_OUT,),
    "cudaDeviceGetAttribute": (_INT_OUT, ctypes.c_int, ctypes.c_int),
    "cudaMemGetInfo": (_SIZE_OUT, _SIZE_OUT),
    "cudaMalloc": (_POINTER_OUT, ctypes.c_size_t),
    "cudaFree": (ctypes.c_void_p,),
    "cudaStreamCreate": (_POINTER_OUT,),
    "cudaStreamDestroy": (ctypes.c_void_p,),
    "cudaStreamSynchronize": (ctypes.c_void_p,),
    "cudaMemcpyAsync": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p),
}
#: Functions that return a text for a cudaError_t.
_TEXTS = ("cudaGetErrorName", "cudaGetErrorString")

#: What to do about an error, by its name.
ADVICE = {
    "cudaErrorInsufficientDriver": "no NVIDIA driver here, or one older than the CUDA runtime: on a Jetson use the "
    "JetPack image's own libraries, in a container pass --runtime nvidia",
    "cudaErrorNoDevice": "the driver shows no GPU: look at CUDA_VISIBLE_DEVICES, and at `dmesg` for the driver",
    "cudaErrorMemoryAllocation": "the GPU is out of memory, which on a Jetson is the board's: close other programs, or "
    "export with a smaller --static-batch",
    "cudaErrorIllegalAddress": "the process has to start again; if it comes back, report it with the bundle",
    "cudaErrorInitializationError": "the driver does not start: is the user in the group 'video'? `dmesg` says more",
}


class Cudart:
    """The CUDA runtime of this process, on device 0. Addresses and streams are int; errors become BackendError."""

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
        for name in _TEXTS:
            function = getattr(library, name)
            function.argtypes, function.restype = (ctypes.c_int,), ctypes.c_char_p

    def device_count(self) -> int:
        """Number of GPUs that the driver shows; BackendError without a driver. Call it before any TensorRT object is
        made: without a driver TensorRT (seen with 10.16) crashes the process instead of raising."""
        count = self._int("cudaGetDeviceCount")
        if not count:
            raise BackendError("the CUDA driver shows no GPU: " + ADVICE["cudaErrorNoDevice"])
        return count

    def version(self) -> str:
        """The version of the runtime library, "10.2"."""
        number = self._int("cudaRuntimeGetVersion")
        return "{}.{}".format(number // 1000, number % 1000 // 10)

    def compute_capability(self) -> str:
        """The compute capability of device 0, "5.3"."""
        return "{}.{}".format(*(self._int("cudaDeviceGetAttribute", each, 0) for each in (_MAJOR, _MINOR)))

    def memory(self) -> Tuple[int, int]:
        """Free and total bytes of memory; on a Jetson the GPU shares the board's memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def malloc(self, n_bytes: int) -> int:
        """Address of `n_bytes` on the device."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), n_bytes)
        return address.value or 0

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def stream(self) -> int:
        """A new stream, in which work runs in order."""
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        return stream.value or 0

    def destroy(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Waits for all work in `stream`; errors of that work come out here."""
        self._call("cudaStreamSynchronize", stream)

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copies a contiguous `array`, which must stay until the stream is synchronised."""
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, _HOST_TO_DEVICE, stream)

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Fills a contiguous `array`; its values are there once the stream is synchronised."""
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, _DEVICE_TO_HOST, stream)

    def _int(self, name: str, *arguments: int) -> int:
        value = ctypes.c_int()
        self._call(name, ctypes.byref(value), *arguments)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            error, text = (getattr(self._library, each)(code).decode() for each in _TEXTS)
            advice = ADVICE.get(error, "see the CUDA runtime's documentation of {}".format(error))
            raise BackendError("{} gave {} ({}: {}): {}".format(name, error, code, text, advice))


def load() -> Cudart:
    """The system's CUDA runtime; BackendError with the places that were searched when there is none."""
    places = candidates()
    for place in places:
        try:
            return Cudart(ctypes.CDLL(place))
        except (OSError, AttributeError):
            continue  # another of them may load; that none did is said below
    raise BackendError(
        "the CUDA runtime library was not found (looked for {}): install JetPack's cuda-cudart, or name its folder in "
        "LD_LIBRARY_PATH".format(", ".join(places))
    )


def candidates() -> List[str]:
    """Names and paths under which libcudart may be, the likeliest first."""
    found: Optional[str] = ctypes.util.find_library("cudart")
    installed = sorted(glob.glob(os.path.join(os.sep, "usr", "local", "cuda*", "lib64", "libcudart.so*")))
    names = ["libcudart.so"] + ["libcudart.so.{}".format(version) for version in ("13", "12", "11.0", "10.2")]
    return ([found] if found else []) + names + installed
