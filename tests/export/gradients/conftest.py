"""What the tests of the gradient rules share: one operator, differentiated and run, against PyTorch's autograd."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.base import Arrays
from edgekit.export.gradient import differentiate
from edgekit.export.graph import BATCH, Graph, Shape
from edgekit.runtime.backends.registry import backend_class
from edgekit.tensors import TensorSpec


class Differentiated(NamedTuple):
    graph: Graph
    result: str
    #: Name -> value of each differentiable input, and the names of their gradients, in the same order.
    variables: Arrays
    gradients: list[str]
    #: All tensors of the forward pass.
    forward: set[str]


#: Adds the nodes to a graph, given the names of the inputs and the result's shape; returns the result.
Emit = Callable[[Graph, list[str], Shape], str]


@pytest.fixture(scope="session")
def against_autograd() -> Callable[..., None]:
    return check


def check(
    op: str | Emit, inputs: Sequence[Any], like: Callable[..., Any], more: Sequence[Shape] = (), **a: Any
) -> None:
    """The result of `op` and the gradient of every differentiable input, in both engines, as `like` has them.

    `inputs` are tensors (fed, the batch first), parameters (weights), constant arrays, or None where one is omitted.
    `like` takes the tensors and parameters in float64. `more` are the shapes of further outputs, `a` the attributes.
    """
    exact = [value.detach().double().requires_grad_() for value in inputs if isinstance(value, torch.Tensor)]
    expected = like(*exact)
    gradient = torch.from_numpy(np.random.default_rng(1).normal(size=expected.shape)).float()
    expected.backward(gradient.double())

    def emit(graph: Graph, names: list[str], shape: Shape) -> str:
        return op(graph, names, shape) if callable(op) else graph.add(op, names, shape, *more, **a)[0]

    built = build(emit, inputs, tuple(expected.shape))
    for engine in ("onnxruntime", "reference"):
        y, gradients = run(built, gradient.numpy(), engine)
        close(y, expected.detach(), f"{engine}: the result")
        for name, computed, tensor in zip(built.variables, gradients, exact, strict=True):
            assert tensor.grad is not None
            close(computed, tensor.grad, f"{engine}: the gradient of {name}")


def build(emit: Emit, inputs: Sequence[Any], shape: Shape) -> Differentiated:
    graph = Graph()
    names: list[str] = []
    variables: Arrays = {}
    dynamic = False
    for i, value in enumerate(inputs):
        if isinstance(value, torch.Tensor):
            array = value.detach().numpy()
            if isinstance(value, nn.Parameter):
                names.append(graph.weight(f"w{i}", array))
            else:
                names.append(graph.input(TensorSpec(f"x{i}", "float32", (BATCH, *array.shape[1:]))))
                dynamic = True
            variables[names[-1]] = array
        else:
            names.append("" if value is None else graph.constant(value))
    result = emit(graph, names, (BATCH, *shape[1:]) if dynamic else shape)
    count = len(graph.nodes)
    gradient = graph.input(TensorSpec("gradient", "float32", graph.shape(result)))
    computed = differentiate(graph, result, gradient, variables)
    gradients = [graph.op("Identity", [computed[name]], graph.shape(name)) for name in variables]
    forward = {name for node in graph.nodes[:count] for name in node.output}
    return Differentiated(graph, result, variables, gradients, forward)


def run(built: Differentiated, gradient: np.ndarray, engine: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The result, and the gradients; weights are held inputs, as in a bundle."""
    graph = built.graph
    model, spec = graph.model(built.gradients, given=built.forward, held=graph.weights, file="backward.onnx")
    saved = [s.name for s in spec.inputs if s.name in built.forward]
    outputs = list(dict.fromkeys([built.result, *saved]))
    feeds = {**built.variables, "gradient": gradient}
    for data, described in (graph.model(outputs, held=graph.weights, file="forward.onnx"), (model, spec)):
        backend = backend_class(engine)(data, described)
        backend.set_weights({s.name: feeds[s.name] for s in described.held})
        feeds.update(backend.run({s.name: feeds[s.name] for s in described.inputs}))
        backend.close()
    return feeds[built.result], [feeds[name] for name in built.gradients]


def close(got: np.ndarray, expected: torch.Tensor, what: str) -> None:
    truth = expected.numpy()
    assert got.shape == truth.shape, what
    error, size = float(np.linalg.norm(got - truth)), float(np.linalg.norm(truth))
    assert error <= 1e-4 * size, f"{what} is off by {error:.3g} of {size:.3g}"
