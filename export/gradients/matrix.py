"""Gradient rules of the matrix products Gemm and MatMul."""

from edgekit.export.gradients.step import Step, unbroadcast
from edgekit.export.graph import BATCH


def gemm(step: Step) -> list[str | None]:
    """Gradients of alpha * A' @ B' + beta * C, where A' is A or its transpose, and B' alike."""
    graph, a, g = step.graph, step.attributes, step.g
    left, right = step.node.input[:2]
    turned_a, turned_b, alpha = a.get("transA", 0), a.get("transB", 0), a.get("alpha", 1.0)
    grads: list[str | None] = [None] * len(step.node.input)
    if step.needed[0]:
        pair, turns = ((right, g), (turned_b, 1)) if turned_a else ((g, right), (0, 1 - turned_b))
        grads[0] = graph.op("Gemm", pair, step.shape(0), alpha=alpha, transA=turns[0], transB=turns[1])
    if step.needed[1]:
        pair, turns = ((g, left), (1, turned_a)) if turned_b else ((left, g), (1 - turned_a, 0))
        grads[1] = graph.op("Gemm", pair, step.shape(1), alpha=alpha, transA=turns[0], transB=turns[1])
    if len(grads) > 2 and step.needed[2]:
        beta, total = a.get("beta", 1.0), unbroadcast(step, g, 2)
        grads[2] = total if beta == 1 else graph.op("Mul", [total, step.scalar(beta)], step.shape(2))
    return grads


def matmul(step: Step) -> list[str | None]:
    """Gradients of a product of matrices, or of stacks of matrices whose leading axes broadcast."""
    graph, g = step.graph, step.g
    (*lead_a, m, k), (*lead_b, _, p) = _matrices(step, 0), _matrices(step, 1)
    lead, grads = graph.shape(g)[:-2], [None, None]  # type: tuple[int, ...], list[str | None]
    if step.needed[0]:
        full = graph.op("MatMul", [g, _turned(step, 1)], (*lead, m, k))
        grads[0] = unbroadcast(step, full, 0)
    if step.needed[1] and not lead_b:
        # One matrix for all: the sum over the leading axes is part of one product.
        rows = [
            graph.op("Reshape", [name, graph.ints(-1, n)], (BATCH, n)) if lead_a else name
            for name, n in ((step.x, k), (g, p))
        ]
        grads[1] = graph.op("Gemm", rows, step.shape(1), transA=1)
    elif step.needed[1]:
        full = graph.op("MatMul", [_turned(step, 0), g], (*lead, k, p))
        grads[1] = unbroadcast(step, full, 1)
    return grads


def _matrices(step: Step, index: int) -> tuple[int, ...]:
    if len(step.shape(index)) < 2:
        raise step.refuse("of a vector has no gradient rule, only that of matrices: reshape it to (1,n) or (n,1)")
    return step.shape(index)


def _turned(step: Step, index: int) -> str:
    *lead, rows, columns = step.shape(index)
    order = [*range(len(lead)), len(lead) + 1, len(lead)]
    return step.graph.op("Transpose", [step.node.input[index]], (*lead, columns, rows), perm=order)
