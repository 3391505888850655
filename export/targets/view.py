"""View: what a board rule may ask of a graph: types, shapes, constants, who computes a tensor and who reads it."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import onnx
from onnx import helper

from edgekit.device_profiles.profile import Target
from edgekit.errors import ExportError

#: Sizes; a str names one that is not known.
Shape = tuple[int | str, ...]


class Unknown(Exception):
    """Raised when a board rule needs a type or a shape that shape inference does not give."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(f"got {got}, expected {expected}")
        self.got = got
        self.expected = expected


class View:
    """A graph with the inferred type and shape of its tensors, and the target that it is for; only for reading.

    ExportError for a graph whose types or shapes contradict each other.
    """

    def __init__(self, model: onnx.ModelProto, target: Target, replaceable: Collection[str] = ()) -> None:
        try:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        except onnx.shape_inference.InferenceError as error:
            raise ExportError(f"shape inference refuses the deployed graph: {error}") from None
        self.model = model
        self.target = target
        #: Names of the initialisers that get new values on the device.
        self.replaceable = replaceable
        self.nodes = list(model.graph.node)
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        #: Initialisers by name, less those that are defaults of an input.
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in self.inputs}
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        #: Tensor -> its readers, one entry per use.
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        #: Tensor -> numpy's name of its type.
        self.types = {name: _dtype(tensor.data_type) for name, tensor in self.constants.items()}
        self.shapes: dict[str, Shape] = {name: tuple(tensor.dims) for name, tensor in self.constants.items()}
        for value in [*inferred.input, *inferred.value_info, *inferred.output]:
            tensor = value.type.tensor_type
            if tensor.elem_type:
                self.types[value.name] = _dtype(tensor.elem_type)
            if tensor.HasField("shape"):
                self.shapes[value.name] = tuple(
                    d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
                )

    def dtype(self, name: str) -> str:
        """numpy's name of the type of tensor `name`; Unknown if inference did not find it."""
        if name not in self.types:
            raise Unknown(f"'{name}' of unknown type", "a known one")
        return self.types[name]

    def is_integer(self, name: str) -> bool:
        return self.dtype(name).startswith(("int", "uint"))

    def rank(self, name: str) -> int:
        """Number of dimensions of tensor `name`; Unknown if inference did not find it."""
        if name not in self.shapes:
            raise Unknown(f"'{name}' of unknown rank", "a known one")
        return len(self.shapes[name])

    def is_static(self, name: str) -> bool:
        """Whether every size of the tensor is known and positive."""
        return name in self.shapes and all(isinstance(size, int) and size > 0 for size in self.shapes[name])

    def sides(self, name: str) -> tuple[int, int]:
        """Height and width of an (n,C,H,W) tensor."""
        if self.rank(name) != 4:
            raise Unknown(f"'{name}' of {self.rank(name)} dimensions", "4")
        height, width = self.shapes[name][2:]
        if isinstance(height, str) or isinstance(width, str):
            raise Unknown(f"'{name}' of unknown height or width", "known ones")
        return height, width


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that are written out at `node`, by name; texts are bytes. Those left at defaults are not there."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _dtype(element: int) -> str:
    return helper.tensor_dtype_to_np_dtype(element).name
