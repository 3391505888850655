"""Graph: an ONNX graph under construction, with the type and shape of every tensor known."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.errors import ExportError
from edgekit.tensors import TensorSpec

Shape = tuple[int, ...]
#: Stands for the size of the batch in a shape.
BATCH = -1


class Versions(NamedTuple):
    """The operator set and the file format that a graph is written in."""

    opset: int
    ir_version: int


#: Those of the graphs that learn: ONNX Runtime 1.10, the last for Python 3.6, reads them.
TRAINING = Versions(opset=15, ir_version=8)


class Graph:
    """ONNX nodes in order of computation. Tensors have unique names; `specs` holds the dtype and shape of each.

    Three kinds of tensors have no node: `inputs` (fed at every run), `weights` (values that change between runs, by
    their PyTorch names) and `constants`.
    """

    def __init__(self, versions: Versions = TRAINING) -> None:
        self.versions = versions
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, TensorSpec] = {}
        self.weights: dict[str, np.ndarray] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.specs: dict[str, TensorSpec] = {}
        self._names: dict[tuple[str, Shape, bytes], str] = {}
        #: The layer of the network that a node stands for, for messages.
        self.layers: dict[str, str] = {}
        self._layer = ""
        self._count = 0
        #: What a node of one output computes -> its output, of the nodes since `start_part`.
        self._computed: dict[str, str] = {}

    def input(self, spec: TensorSpec) -> str:
        self.inputs[spec.name] = self.specs[spec.name] = spec
        return spec.name

    def weight(self, name: str, value: np.ndarray) -> str:
        self.weights[name] = value
        self.specs[name] = TensorSpec(name, value.dtype.name, value.shape)
        return name

    def constant(self, value: np.ndarray) -> str:
        """The name of a constant of this value; equal constants share one."""
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._names:
            name = self._names[key] = f"const.{len(self._names)}"
            self.constants[name] = value
            self.specs[name] = TensorSpec(name, value.dtype.name, value.shape)
        return self._names[key]

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def in_layer(self, layer: str) -> None:
        """Nodes added from here on belong to `layer` of the network."""
        self._layer = layer

    def start_part(self) -> None:
        """Nodes added from here on are not shared with those before."""
        self._computed.clear()

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        *shapes: Shape,
        dtypes: Sequence[str] = (),
        outputs: Sequence[str] = (),
        **attributes: Any,
    ) -> list[str]:
        """Appends a node with one output per shape (float32 unless `dtypes` says otherwise); returns their names."""
        self._count += 1
        names = list(outputs) or [f"{op.lower()}_{self._count}" + (f".{i}" if i else "") for i in range(len(shapes))]
        node = helper.make_node(op, list(inputs), names, name=f"{op}_{self._count}", **attributes)
        self.nodes.append(node)
        self.layers[node.name] = self._layer
        for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
            self.specs[name] = TensorSpec(name, dtypes[i] if dtypes else "float32", tuple(shape))
        return names

    def op(self, op: str, inputs: Sequence[str], shape: Shape, **attributes: Any) -> str:
        """The output of a node of one output, float32 unless `dtypes` says otherwise; equal nodes are added once."""
        key = repr((op, list(inputs), shape, sorted(attributes.items())))
        if key not in self._computed:
            self._computed[key] = self.add(op, inputs, shape, **attributes)[0]
        return self._computed[key]

    def shape(self, name: str) -> Shape:
        return self.specs[name].shape

    def with_axes(self, op: str, x: str, shape: Shape, axes: Sequence[int], **attributes: Any) -> str:
        """Appends a ReduceSum, Squeeze or Unsqueeze, whose axes are an attribute before opset 13 and an input since."""
        if self.versions.opset < 13:
            return self.op(op, [x], shape, axes=list(axes), **attributes)
        return self.op(op, [x, self.ints(*axes)], shape, **attributes)

    def model(
        self,
        outputs: Sequence[str],
        given: Iterable[str] = (),
        held: Iterable[str] = (),
        *,
        file: str,
        batch: int = BATCH,
        ordered: tuple[str, ...] = (),
    ) -> tuple[bytes, GraphSpec]:
        """An ONNX model that computes `outputs`, with the nodes needed for them alone, and its spec.

        Tensors in `given` become inputs instead of being computed. Inputs and weights in `held` become inputs that
        keep their value between runs; other weights become replaceable initialisers. With `batch` given, the batch
        is static. `ordered`, weights whose filters are in coded order, goes into the spec. The model has passed
        onnx.checker with shape inference.
        """
        needed, nodes = set(outputs), []
        given = set(given)
        for node in reversed(self.nodes):
            if needed & (set(node.output) - given):
                nodes.append(node)
                needed |= set(node.input)
        nodes.reverse()
        held = set(held)
        sized = {name: _sized(spec, batch) for name, spec in self.specs.items()}
        inputs = [sized[name] for name in sized if name in needed and (name in given or name in self.inputs)]
        weights = [sized[name] for name in self.weights if name in needed]
        spec = GraphSpec(
            file,
            tuple(s for s in inputs if s.name not in held),
            tuple(s for s in [*inputs, *weights] if s.name in held),
            tuple(s for s in weights if s.name not in held),
            tuple(sized[name] for name in outputs),
            ordered,
        )
        stored = {s.name: self.weights[s.name] for s in spec.constants}
        stored.update((name, value) for name, value in self.constants.items() if name in needed)
        proto = helper.make_model(
            helper.make_graph(
                nodes,
                "edgekit",
                [_value_info(s) for s in spec.inputs + spec.held],
                [_value_info(s) for s in spec.outputs],
                [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in stored.items()],
            ),
            opset_imports=[helper.make_opsetid("", self.versions.opset)],
            ir_version=self.versions.ir_version,
            producer_name="edgekit",
        )
        try:
            onnx.checker.check_model(proto, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"{file} does not pass onnx.checker: {error}") from None
        return proto.SerializeToString(), spec


def _sized(spec: TensorSpec, batch: int) -> TensorSpec:
    return spec._replace(shape=tuple(batch if d == BATCH else d for d in spec.shape))


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, dtype, ["n" if d == BATCH else d for d in spec.shape])
