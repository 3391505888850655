"""The part of `emulator` that knows models: .om files as `atc_emulator` writes them, run by ONNX Runtime."""

import json
import os
from typing import Any, NamedTuple

import numpy as np

from tests.device.ascend.emulated_calls import Calls, Code

OM = b"emulated om\n"
DTYPES = {"float32": 0, "float16": 1, "int32": 3, "int64": 9}


class Tensor(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    size: int


class Model(NamedTuple):
    session: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    context: int


class Models(Calls):
    """acl.mdl"""

    chip = ""

    def acl_mdl_create_dataset(self) -> int:
        """value, context"""
        return self._new("dataset", [])

    def acl_mdl_add_dataset_buffer(self, dataset: int, buffer: int) -> int:
        """pair, context"""
        self._get("data buffer", buffer)
        self._get("dataset", dataset).append(buffer)
        return dataset

    def acl_mdl_destroy_dataset(self, dataset: int) -> None:
        """code, context, free"""
        self._free("dataset", dataset)

    def acl_mdl_load_from_file(self, path: str) -> int:
        """pair, context"""
        if not os.path.isfile(path):
            raise Code(145002)
        with open(path, "rb") as file:
            om = file.read()
        if not om.startswith(OM):
            raise Code(100012)
        head, _, onnx = om[len(OM) :].partition(b"\n")
        if json.loads(head)["soc_version"] != self.chip:
            raise Code(500002)
        return self._new("model", _model(json.loads(head), onnx, self._current()))

    def acl_mdl_unload(self, model: int) -> None:
        """code, context, free"""
        self._get("model", model, 100011)
        self._free("model", model)

    def acl_mdl_create_desc(self) -> int:
        """value, context"""
        return self._new("description", None)

    def acl_mdl_get_desc(self, description: int, model: int) -> None:
        """code, context"""
        self._get("description", description)
        self.live["description"][description] = self._get("model", model, 100011)

    def acl_mdl_destroy_desc(self, description: int) -> None:
        """code, context, free"""
        self._free("description", description)

    def _described(self, description: int) -> Model:
        model: Model | None = self._get("description", description)
        if model is None:
            raise Code(100000)
        return model

    def acl_mdl_get_num_inputs(self, description: int) -> int:
        """value, context"""
        return len(self._described(description).inputs)

    def acl_mdl_get_num_outputs(self, description: int) -> int:
        """value, context"""
        return len(self._described(description).outputs)

    def acl_mdl_get_input_index_by_name(self, description: int, name: str) -> int:
        """pair, context"""
        names = [tensor.name for tensor in self._described(description).inputs]
        if name not in names:
            raise Code(100000)
        return names.index(name)

    def acl_mdl_get_input_size_by_index(self, description: int, index: int) -> int:
        """value, context"""
        return int(self._described(description).inputs[index].size)

    def acl_mdl_get_output_size_by_index(self, description: int, index: int) -> int:
        """value, context"""
        return int(self._described(description).outputs[index].size)

    def acl_mdl_get_input_dims(self, description: int, index: int) -> dict[str, Any]:
        """pair, context"""
        return _dims(self._described(description).inputs[index])

    def acl_mdl_get_output_dims(self, description: int, index: int) -> dict[str, Any]:
        """pair, context"""
        return _dims(self._described(description).outputs[index])

    def acl_mdl_get_input_data_type(self, description: int, index: int) -> int:
        """value, context"""
        return DTYPES[self._described(description).inputs[index].dtype.name]

    def acl_mdl_get_output_data_type(self, description: int, index: int) -> int:
        """value, context"""
        return DTYPES[self._described(description).outputs[index].dtype.name]

    def acl_mdl_execute(self, model: int, given: int, wanted: int) -> None:
        """code, context"""
        loaded: Model = self._get("model", model, 100011)
        if loaded.context != self._current():
            raise Code(107004)
        sources = self._memories(given, loaded.inputs, 100017)
        targets = self._memories(wanted, loaded.outputs, 100018)
        feeds = {
            tensor.name: np.frombuffer(memory, tensor.dtype).reshape(tensor.shape)
            for tensor, memory in zip(loaded.inputs, sources, strict=True)
        }
        results = loaded.session.run([tensor.name for tensor in loaded.outputs], feeds)
        for tensor, memory, result in zip(loaded.outputs, targets, results, strict=True):
            raw = result.astype(tensor.dtype).tobytes()
            memory[: len(raw)] = raw

    def _memories(self, dataset: int, tensors: list[Tensor], code: int) -> list[bytearray]:
        buffers = [self._get("data buffer", buffer) for buffer in self._get("dataset", dataset)]
        if [size for _, size in buffers] != [tensor.size for tensor in tensors]:
            raise Code(code)
        return [self._get("device memory", pointer) for pointer, _ in buffers]


def _dims(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "dimCount": len(tensor.shape), "dims": list(tensor.shape)}


def _model(head: dict[str, Any], onnx: bytes, context: int) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    inputs = []
    for name, shape in head["inputs"].items():
        inputs.append(Tensor(name, np.dtype("float32"), tuple(shape), 4 * int(np.prod(shape))))
    zeros = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in inputs}
    names = [value.name for value in session.get_outputs()]
    outputs = []
    for name, result in zip(names, session.run(names, zeros), strict=True):
        dtype = np.dtype(head["types"].get(result.dtype.name, result.dtype.name))
        # Sizes of outputs are multiples of 32 B, as a device may have them.
        outputs.append(Tensor(name, dtype, result.shape, -(-result.size * dtype.itemsize // 32) * 32))
    return Model(session, inputs, outputs, context)
