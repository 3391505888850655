"""The ONNX graph inside an emulated TensorRT engine."""

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime
from onnx import helper, numpy_helper


class Graph:
    """The model inside: initialisers by name, what is fused, and a session."""

    def __init__(self, model: bytes, half: bool) -> None:
        self.model = onnx.load_from_string(model)
        self.half = half
        self.tensors = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.floats = [name for name, tensor in self.tensors.items() if tensor.data_type == onnx.TensorProto.FLOAT]
        self.fused = {}
        for node in self.model.graph.node:
            if node.op_type in ("Conv", "ConvTranspose") and len(node.input) == 3:
                self.fused[node.input[1]] = node.input[2]
        self.set({})

    def set(self, values: dict[str, np.ndarray]) -> None:
        for name, array in values.items():
            self.tensors[name].CopyFrom(numpy_helper.from_array(array, name))
        model = in_half(self.model) if self.half else self.model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def transposed(self, name: str) -> bool:
        """Whether TensorRT 8.2 stores it so."""
        return any(
            node.op_type == "Gemm"
            and node.input[1] == name
            and not any(each.name == "transB" and each.i for each in node.attribute)
            for node in self.model.graph.node
        )


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every weight and every float result rounded to float16; sums inside a node stay float32."""
    rounded = onnx.shape_inference.infer_shapes(model)
    graph = rounded.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    given = {value.name for value in graph.output}
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(to_half(numpy_helper.to_array(tensor)), tensor.name))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        for i, name in enumerate(node.output):
            if types.get(name) == onnx.TensorProto.FLOAT and name not in given:
                graph.node[-1].output[i] = name + ".exact"
                graph.node.extend(
                    [
                        helper.make_node("Cast", [name + ".exact"], [name + ".half"], to=onnx.TensorProto.FLOAT16),
                        helper.make_node("Cast", [name + ".half"], [name], to=onnx.TensorProto.FLOAT),
                    ]
                )
    del graph.value_info[:]
    return rounded


def to_half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)
