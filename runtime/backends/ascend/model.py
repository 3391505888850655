"""One .om on the device: its description, and the datasets and buffers that carry its inputs and outputs.

::

    array -> pointer of bytes or array -> memcpy -> device buffer -> execute -> device buffer -> memcpy -> host buffer
"""

import weakref
from contextlib import ExitStack
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.runtime.backends.ascend.calls import Acl
from edgekit.runtime.backends.ascend.process import Process
from edgekit.tensors import TensorSpec

#: aclDataType -> numpy's.
DTYPES = {
    0: "float32", 1: "float16", 2: "int8", 3: "int32", 4: "uint8", 6: "int16", 7: "uint16", 8: "uint32", 9: "int64",
    10: "uint64", 11: "float64", 12: "bool",
}  # fmt: skip
_HUGE_FIRST = 0
_HOST_TO_DEVICE, _DEVICE_TO_HOST, _DEVICE_TO_DEVICE = 1, 2, 3
_NPY_UINT8 = 2


class _Buffer(NamedTuple):
    """The memory of one input or output."""

    spec: TensorSpec
    #: The model's own type: it may be wider or narrower than that of `spec`.
    dtype: "np.dtype[Any]"
    shape: Tuple[int, ...]
    #: Device memory and its bytes.
    device: int
    size: int
    #: Host memory of that many bytes for an output, 0 for an input.
    host: int


class Model:
    """A loaded model. BackendError when its inputs or outputs differ from the specs; outputs are matched by order."""

    def __init__(
        self, process: Process, path: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._process = process
        self._acl: Acl = process.acl
        with ExitStack() as owned:
            process.attach()
            owned.callback(process.detach)
            process.enter()
            # Made before the model, because it must be destroyed after it: unload, then destroy_desc.
            self._desc = self._acl.handle("mdl.create_desc")
            owned.callback(self._acl.do, "mdl.destroy_desc", self._desc)
            self._id = self._acl.make("mdl.load_from_file", path)
            owned.callback(self._acl.do, "mdl.unload", self._id)
            self._acl.do("mdl.get_desc", self._desc, self._id)
            self._expect_count("mdl.get_num_inputs", inputs)
            self._expect_count("mdl.get_num_outputs", outputs)
            by_index = {self._acl.make("mdl.get_input_index_by_name", self._desc, spec.name): spec for spec in inputs}
            if sorted(by_index) != list(range(len(inputs))):
                raise _wrong("inputs {} have the indices {}".format([s.name for s in inputs], sorted(by_index)))
            self._inputs = [self._buffer(owned, "input", i, by_index[i]) for i in range(len(inputs))]
            self._outputs = [self._buffer(owned, "output", i, spec) for i, spec in enumerate(outputs)]
            self._in = self._dataset(owned, self._inputs)
            self._out = self._dataset(owned, self._outputs)
            # Frees at `close`, or when the model is dropped, or when the process ends.
            self._free = weakref.finalize(self, _free, process, owned.pop_all())

    def run(self, feeds: Arrays) -> Arrays:
        """Outputs by name, as new arrays of the dtypes of their specs."""
        self._process.enter()
        for buffer in self._inputs:
            self._write(buffer, feeds[buffer.spec.name])
        self._acl.do("mdl.execute", self._id, self._in, self._out)
        return {buffer.spec.name: self._read(buffer) for buffer in self._outputs}

    def close(self) -> None:
        """Frees everything, in the documented order; a second call does nothing."""
        self._free()

    def _expect_count(self, name: str, specs: Sequence[TensorSpec]) -> None:
        count = self._acl.number(name, self._desc)
        if count != len(specs):
            raise _wrong("acl.{} gives {}, expected {}".format(name, count, [spec.name for spec in specs]))

    def _buffer(self, owned: ExitStack, kind: str, index: int, spec: TensorSpec) -> _Buffer:
        size = self._acl.number("mdl.get_{}_size_by_index".format(kind), self._desc, index)
        dims: Dict[str, Any] = self._acl.make("mdl.get_{}_dims".format(kind), self._desc, index)
        shape = tuple(int(length) for length in dims["dims"])
        code = self._acl.number("mdl.get_{}_data_type".format(kind), self._desc, index)
        dtype = np.dtype(DTYPES[code]) if code in DTYPES else None
        # By version, ATC makes indices int32 or int64, and floats float32 or float16.
        if dtype is None or dtype.kind != np.dtype(spec.dtype).kind or not spec.fits(shape):
            raise _wrong(
                "{} {} is {} {}, expected '{}' of {} {}".format(
                    kind, index, dtype or "aclDataType {}".format(code), list(shape), spec.name, spec.dtype,
                    list(spec.shape),
                )
            )  # fmt: skip
        needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size < needed or (kind == "input" and size != needed):
            raise _wrong("{} '{}' of {} {} has {} B".format(kind, spec.name, dtype, list(shape), size))
        device = self._acl.make("rt.malloc", size, _HUGE_FIRST)
        owned.callback(self._acl.do, "rt.free", device)
        host = 0
        if kind == "output":
            host = self._acl.make("rt.malloc_host", size)
            owned.callback(self._acl.do, "rt.free_host", host)
        return _Buffer(spec, dtype, shape, device, size, host)

    def _dataset(self, owned: ExitStack, buffers: List[_Buffer]) -> Any:
        dataset = self._acl.handle("mdl.create_dataset")
        owned.callback(self._acl.do, "mdl.destroy_dataset", dataset)
        for buffer in buffers:
            data = self._acl.handle("create_data_buffer", buffer.device, buffer.size)
            owned.callback(self._acl.do, "destroy_data_buffer", data)
            self._acl.make("mdl.add_dataset_buffer", dataset, data)
        return dataset

    def _write(self, buffer: _Buffer, array: np.ndarray) -> None:
        array = np.asarray(array, dtype=buffer.dtype, order="C")
        if array.shape != buffer.shape:
            raise _wrong(
                "'{}' has shape {}, the .om is for {}".format(buffer.spec.name, list(array.shape), list(buffer.shape))
            )
        # `pointer` is an address inside `content`, which therefore lives until memcpy has returned.
        if self._acl.has("util.bytes_to_ptr"):
            content: Any = array.tobytes()
            pointer = self._acl.handle("util.bytes_to_ptr", content)
        else:  # CANN before 5.1
            content = array
            pointer = self._acl.handle("util.numpy_to_ptr", content)
        kind = _HOST_TO_DEVICE if self._process.on_host else _DEVICE_TO_DEVICE
        self._acl.do("rt.memcpy", buffer.device, buffer.size, pointer, array.nbytes, kind)
        del content

    def _read(self, buffer: _Buffer) -> np.ndarray:
        kind = _DEVICE_TO_HOST if self._process.on_host else _DEVICE_TO_DEVICE
        self._acl.do("rt.memcpy", buffer.host, buffer.size, buffer.device, buffer.size, kind)
        count = int(np.prod(buffer.shape, dtype=np.int64))
        if self._acl.has("util.ptr_to_bytes"):
            raw = self._acl.handle("util.ptr_to_bytes", buffer.host, buffer.size)
        else:
            raw = self._acl.handle("util.ptr_to_numpy", buffer.host, (buffer.size,), _NPY_UINT8)
        values = np.frombuffer(raw, buffer.dtype, count).reshape(buffer.shape)
        # A copy: the next run overwrites what `raw` points to.
        return values.astype(buffer.spec.dtype)


def _wrong(message: str) -> BackendError:
    return BackendError("the .om is not this graph's: {}: export the bundle again for this board".format(message))


def _free(process: Process, owned: ExitStack) -> None:
    with owned:
        process.enter()
