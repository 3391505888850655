"""An emulator of libcudart: device memory is host memory with an account of it, and work waits for its stream.

It is put in the place of the library that ctypes loads, as real C functions, so that `tensorrt/cudart.py` runs as it
is. Copies and kernels happen when their stream is synchronised, in order: whoever reads too early reads nothing. A
wrong address, or one that was freed, gives cudaErrorIllegalAddress there, as the real one does, and then at every call.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

ERRORS = {
    0: ("cudaSuccess", "no error"),
    1: ("cudaErrorInvalidValue", "invalid argument"),
    2: ("cudaErrorMemoryAllocation", "out of memory"),
    35: ("cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"),
    100: ("cudaErrorNoDevice", "no CUDA-capable device is detected"),
    400: ("cudaErrorInvalidResourceHandle", "invalid resource handle"),
    700: ("cudaErrorIllegalAddress", "an illegal memory access was encountered"),
}
_PTR, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
PROTOTYPES = {
    "cudaGetDeviceCount": (_PTR,),
    "cudaDriverGetVersion": (_PTR,),
    "cudaRuntimeGetVersion": (_PTR,),
    "cudaDeviceGetAttribute": (_PTR, _INT, _INT),
    "cudaMemGetInfo": (_PTR, _PTR),
    "cudaMalloc": (_PTR, _SIZE),
    "cudaFree": (_PTR,),
    "cudaStreamCreate": (_PTR,),
    "cudaStreamDestroy": (_PTR,),
    "cudaStreamSynchronize": (_PTR,),
    "cudaMemcpyAsync": (_PTR, _PTR, _SIZE, _INT, _PTR),
}


class Fault(Exception):
    """A call that fails with `code`."""

    def __init__(self, code: int) -> None:
        self.code = code


class Library:
    """What ctypes.CDLL("libcudart.so") would give. `failures` maps a function to the code that it gives once."""

    def __init__(
        self, devices: int = 1, runtime: int = 12060, capability: tuple[int, int] = (8, 7), total: int = 1 << 30
    ) -> None:
        self.devices, self.runtime, self.capability, self.total = devices, runtime, capability, total
        self.failures: dict[str, int] = {}
        self.memory: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.calls: list[str] = []
        #: What went wrong inside work of a stream, other than by a code; ctypes would swallow it.
        self.crashed: list[Exception] = []
        self._sticky = 0
        self._texts = {code: [ctypes.create_string_buffer(text.encode()) for text in ERRORS[code]] for code in ERRORS}
        for name, arguments in PROTOTYPES.items():
            setattr(self, name, ctypes.CFUNCTYPE(_INT, *arguments)(self._guarded(name)))
        for i, name in enumerate(("cudaGetErrorName", "cudaGetErrorString")):
            setattr(self, name, ctypes.CFUNCTYPE(_PTR, _INT)(lambda code, i=i: ctypes.addressof(self._texts[code][i])))

    def at(self, address: int, n_bytes: int) -> np.ndarray:
        """Device memory as bytes; Fault when it is not all inside one allocation."""
        for start, buffer in self.memory.items():
            if start <= address and address + n_bytes <= start + len(buffer):
                return np.frombuffer(buffer, np.uint8, n_bytes, address - start)
        raise Fault(700)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        if stream not in self.streams:
            raise Fault(400)
        self.streams[stream].append(work)

    def _guarded(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            try:
                if not self.devices and name not in ("cudaRuntimeGetVersion", "cudaDriverGetVersion"):
                    raise Fault(35)
                if self._sticky and name not in ("cudaGetDeviceCount",):
                    raise Fault(self._sticky)
                if name in self.failures:
                    raise Fault(self.failures.pop(name))
                getattr(self, "_" + name)(*arguments)
            except Fault as fault:
                if fault.code == 700:
                    self._sticky = 700
                return fault.code
            except Exception as error:  # noqa: BLE001 - told by the test that made this library
                self.crashed.append(error)
                return 700
            return 0

        return call

    def _cudaGetDeviceCount(self, count: int) -> None:
        _INT.from_address(count).value = self.devices

    def _cudaDriverGetVersion(self, version: int) -> None:
        _INT.from_address(version).value = self.runtime if self.devices else 0

    def _cudaRuntimeGetVersion(self, version: int) -> None:
        _INT.from_address(version).value = self.runtime

    def _cudaDeviceGetAttribute(self, value: int, attribute: int, device: int) -> None:
        if attribute not in (75, 76) or device >= self.devices:
            raise Fault(1)
        _INT.from_address(value).value = self.capability[attribute - 75]

    def _cudaMemGetInfo(self, free: int, total: int) -> None:
        _SIZE.from_address(free).value = self.total - sum(map(len, self.memory.values()))
        _SIZE.from_address(total).value = self.total

    def _cudaMalloc(self, address: int, size: int) -> None:
        if size + sum(map(len, self.memory.values())) > self.total:
            raise Fault(2)
        buffer = (ctypes.c_uint8 * size)(*([0xCD] * min(size, 16)))
        self.memory[ctypes.addressof(buffer)] = buffer
        _PTR.from_address(address).value = ctypes.addressof(buffer)

    def _cudaFree(self, address: int) -> None:
        if address is not None and self.memory.pop(address, None) is None:
            raise Fault(1)

    def _cudaStreamCreate(self, stream: int) -> None:
        handle = 0x5000 + 16 * (len(self.calls))
        self.streams[handle] = []
        _PTR.from_address(stream).value = handle

    def _cudaStreamDestroy(self, stream: int) -> None:
        if self.streams.pop(stream, None) is None:
            raise Fault(400)

    def _cudaStreamSynchronize(self, stream: int) -> None:
        if stream not in self.streams:
            raise Fault(400)
        work, self.streams[stream] = self.streams[stream], []
        for each in work:
            each()

    def _cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        device = {1: to, 2: source}.get(kind)
        if device is None:
            raise Fault(1)

        def copy() -> None:
            self.at(device, size)
            ctypes.memmove(to, source, size)

        self.enqueue(stream, copy)
