"""Runs an engine: its buffers on the device, its execution context and its CUDA stream.

TensorRT 8.2 numbers an engine's inputs and outputs (bindings); 8.5 and later name them; 10 has names only.
"""

import contextlib
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.runtime.backends.tensorrt.cudart import Cudart
from edgekit.runtime.backends.tensorrt.messages import Messages

#: TensorRT's names of data types -> numpy's.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "BOOL": "bool",
}  # fmt: skip


class Tensor(NamedTuple):
    """An input or output of an engine; `dtype` is numpy's name, or TensorRT's own where numpy has none."""

    name: str
    is_input: bool
    dtype: str
    shape: Tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return "{} {} {}".format(self.name, self.dtype, "x".join(map(str, self.shape)) or "scalar")


def is_named(engine: Any) -> bool:
    """Whether inputs and outputs go by name (8.5 and later)."""
    return hasattr(engine, "num_io_tensors")


def tensors(trt: Any, engine: Any) -> List[Tensor]:
    """The inputs and outputs of `engine`, in the order of its bindings where it has bindings."""
    if is_named(engine):
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return [
            _tensor(
                name,
                engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
                engine.get_tensor_dtype(name),
                engine.get_tensor_shape(name),
            )
            for name in names
        ]
    return [
        _tensor(
            engine.get_binding_name(i),
            engine.binding_is_input(i),
            engine.get_binding_dtype(i),
            engine.get_binding_shape(i),
        )
        for i in range(engine.num_bindings)
    ]


def _tensor(name: str, is_input: bool, dtype: Any, shape: Any) -> Tensor:
    return Tensor(name, bool(is_input), DTYPES.get(dtype.name, dtype.name), tuple(shape))


class Execution:
    """Runs one engine of static shapes. `close` frees the device memory, which Python does not free by itself."""

    def __init__(self, cuda: Cudart, messages: Messages, engine: Any, io: List[Tensor]) -> None:
        self._cuda = cuda
        self._messages = messages
        self._engine = engine
        self._io = io
        self._addresses: List[int] = []
        self._context: Any = None
        # Frees everything that it holds, even when one of the calls fails.
        self._held = contextlib.ExitStack()
        try:
            self._stream = cuda.stream()
            self._held.callback(cuda.destroy, self._stream)
            for tensor in io:
                address = cuda.malloc(max(tensor.n_bytes, 1))
                self._held.callback(cuda.free, address)
                self._addresses.append(address)
            self.start()
        except BaseException:
            # After an error such as an illegal address, freeing fails too; the first error says more.
            with contextlib.suppress(BackendError):
                self.close()
            raise

    def start(self) -> None:
        """Makes a context over the engine as it is now."""
        with self._messages.during("no execution context"):
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise self._messages.error("no execution context")
            if is_named(self._engine):
                for tensor, address in zip(self._io, self._addresses):
                    if not self._context.set_tensor_address(tensor.name, address):
                        raise self._messages.error("'{}' takes no address".format(tensor.name))

    def stop(self) -> None:
        """Drops the context: in TensorRT 8 it must not be used once the engine's weights have changed."""
        self._context = None

    def run(self, feeds: Arrays) -> Arrays:
        """Outputs by name, as new arrays. BackendError when the device fails."""
        if self._context is None:
            raise self._messages.error("the engine has no execution context: its last refit failed")
        stream = self._stream
        sent = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        outputs = {each.name: np.empty(each.shape, dtype=each.dtype) for each in self._io if not each.is_input}
        for tensor, address in zip(self._io, self._addresses):
            if tensor.is_input:
                self._cuda.to_device(address, sent[tensor.name], stream)
        with self._messages.during("the run failed"):
            if is_named(self._engine):
                done = self._context.execute_async_v3(stream)
            else:
                done = self._context.execute_async_v2(self._addresses, stream)
            if not done:
                raise self._messages.error("the run failed")
        for tensor, address in zip(self._io, self._addresses):
            if not tensor.is_input:
                self._cuda.to_host(outputs[tensor.name], address, stream)
        self._cuda.synchronize(stream)
        return outputs

    def close(self) -> None:
        """Frees context, buffers and stream, each once."""
        self._context = None
        self._held.close()
