"""The reference backend: runs an ONNX graph node by node in numpy. Slow, but needs no other library."""

from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.runtime import onnxfile
from edgekit.runtime.backends import graphfile
from edgekit.runtime.backends.base import Backend
from edgekit.runtime.backends.reference import ops

OPSETS = range(11, 18)


class _Step(NamedTuple):
    """A node, with the function that computes it."""

    node: onnxfile.Node
    operator: ops.Operator
    attributes: Dict[str, Any]
    #: Tensors that no later step uses: they are dropped after this one.
    free: Tuple[str, ...]


class Reference(Backend):
    """Runs graphs of the operators in `ops.OPERATORS`; a graph with any other is refused when it is loaded."""

    backend_id = "reference"

    def _open(self, model: bytes) -> None:
        parsed = graphfile.load(model, self.graph)
        if parsed.opset not in OPSETS:
            raise BackendError(
                "operator set {}, this backend knows {} to {}".format(parsed.opset, OPSETS[0], OPSETS[-1])
            )
        graphfile.check_names(self.graph, parsed.inputs, parsed.outputs)
        self._initializers = parsed.initializers
        self._steps = self._plan(parsed)

    def _plan(self, model: onnxfile.Model) -> List[_Step]:
        known = {"", *model.inputs, *model.initializers}
        for node in model.nodes:
            if node.op not in ops.OPERATORS:
                raise BackendError(
                    "node '{}' is a {}, which this backend does not know: run the graph with another backend, export "
                    "it without that operator, or add it to edgekit.runtime.backends.reference.ops; known "
                    "are {}".format(_name(node), node.op, ", ".join(sorted(ops.OPERATORS)))
                )
            if not known.issuperset(node.inputs):
                raise BackendError(
                    "node '{}' takes {}, of which nothing before it gives {}: the file is damaged, export it "
                    "again".format(_name(node), list(node.inputs), sorted(set(node.inputs) - known))
                )
            known.update(node.outputs)
        if not known.issuperset(model.outputs):
            raise BackendError("nothing in the graph gives the outputs {}".format(sorted(set(model.outputs) - known)))
        table = dict(ops.OPERATORS, **(ops.BEFORE_13 if model.opset < 13 else {}))
        steps: List[_Step] = []
        needed = {"", *model.initializers, *(spec.name for spec in self.graph.outputs)}
        for node in reversed(model.nodes):
            free = {*node.inputs, *node.outputs} - needed
            needed.update(free)
            attributes = dict(node.attributes)
            if node.op == "Split" and len(node.inputs) < 2 and "split" not in attributes:
                attributes["num_outputs"] = len(node.outputs)
            steps.append(_Step(node, table[node.op], attributes, tuple(free)))
        return steps[::-1]

    def _run(self, feeds: Arrays) -> Arrays:
        tensors = dict(self._initializers, **feeds)
        with np.errstate(all="ignore"):  # as in every engine, overflow and division by zero give inf and nan
            for step in self._steps:
                for name, array in zip(step.node.outputs, self._results(step, tensors)):
                    tensors[name] = array
                for name in step.free:
                    tensors.pop(name, None)
        # Copies, because an output may be an input or an initialiser itself.
        return {spec.name: np.array(tensors[spec.name], order="C") for spec in self.graph.outputs}

    def _results(self, step: _Step, tensors: Arrays) -> Tuple[np.ndarray, ...]:
        inputs = [tensors[name] if name else None for name in step.node.inputs]
        try:
            result = step.operator(*inputs, **step.attributes)
        except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError, MemoryError) as error:
            raise BackendError(
                "{} '{}' with inputs {} and attributes {}: {}".format(
                    step.node.op,
                    _name(step.node),
                    [None if array is None else "{} {}".format(array.dtype, list(array.shape)) for array in inputs],
                    step.attributes,
                    error,
                )
            ) from error
        results = (result,) if isinstance(result, np.ndarray) else tuple(result)
        if len(results) < len(step.node.outputs):
            told = "{} '{}' gives {} outputs, the node names {}"
            raise BackendError(told.format(step.node.op, _name(step.node), len(results), list(step.node.outputs)))
        return results

    def _replace(self, constants: Arrays) -> None:
        self._initializers.update({name: array.copy() for name, array in constants.items()})

    def _close(self) -> None:
        self._steps = []
        self._initializers = {}


def _name(node: onnxfile.Node) -> str:
    return node.name or "giving {}".format(", ".join(node.outputs))
