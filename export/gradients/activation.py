"""Gradient rules of activation functions.

They read the function's output instead of its input wherever that is enough: the next layer's rule reads it as well.
"""

from edgekit.export.gradients.step import Step, unbroadcast

#: Makes 1 of all but the tiniest numbers, infinity of none that a network has.
STEEP = 2.0**64


def relu(step: Step) -> list[str | None]:
    """The slope is min(STEEP * y, 1), one node instead of two: 1 for every y of at least 1 / STEEP, 0 for y = 0."""
    slope = step.graph.op("HardSigmoid", [step.y], step.shape(0), alpha=STEEP, beta=0.0)
    return [step.op("Mul", step.g, slope)]


def clip(step: Step) -> list[str | None]:
    """The gradient is zero at the bounds themselves, as in PyTorch's ReLU6."""
    low, high = [*step.node.input[1:], "", ""][:2]
    tests = [(op, step.y, bound) for op, bound in (("Greater", low), ("Less", high)) if bound]
    return [step.op("Mul", step.g, step.mask(*tests)) if tests else step.g]


def leaky_relu(step: Step) -> list[str | None]:
    alpha = step.attributes.get("alpha", 0.01)
    # With a negative slope the output's sign is not the input's.
    on = step.mask(("Greater", step.y if alpha >= 0 else step.x, step.scalar(0.0)))
    return [step.op("Mul", step.g, _either(step, on, step.scalar(1 - alpha), step.scalar(alpha)))]


def prelu(step: Step) -> list[str | None]:
    slope, zero, one = step.node.input[1], step.scalar(0.0), step.scalar(1.0)
    grads: list[str | None] = [None, None]
    if step.needed[0]:
        on = step.mask(("Greater", step.x, zero))
        steeper = step.graph.op("Sub", [one, slope], step.shape(1))
        grads[0] = step.op("Mul", step.g, _either(step, on, steeper, slope))
    if step.needed[1]:
        grads[1] = unbroadcast(step, step.op("Mul", step.g, step.op("Min", step.x, zero)), 1)
    return grads


def elu(step: Step) -> list[str | None]:
    """The slope is 1 where the output is positive, else output + alpha."""
    alpha = step.attributes.get("alpha", 1.0)
    if alpha < 0:
        raise step.refuse(f"with alpha {alpha} has no gradient rule: its output does not tell its input's sign")
    slope = step.op("Add", step.op("Min", step.y, step.scalar(0.0)), step.scalar(alpha))
    if alpha != 1:
        slope = _either(step, step.mask(("Greater", step.y, step.scalar(0.0))), step.scalar(1 - alpha), slope)
    return [step.op("Mul", step.g, slope)]


def sigmoid(step: Step) -> list[str | None]:
    gy = step.op("Mul", step.g, step.y)
    return [step.op("Sub", gy, step.op("Mul", gy, step.y))]


def hard_sigmoid(step: Step) -> list[str | None]:
    inside = step.mask(("Greater", step.y, step.scalar(0.0)), ("Less", step.y, step.scalar(1.0)))
    slope = step.op("Mul", inside, step.scalar(step.attributes.get("alpha", 0.2)))
    return [step.op("Mul", step.g, slope)]


def tanh(step: Step) -> list[str | None]:
    gy = step.op("Mul", step.g, step.y)
    return [step.op("Sub", step.g, step.op("Mul", gy, step.y))]


def softmax(step: Step) -> list[str | None]:
    shape = step.shape(0)
    axis = step.attributes.get("axis", -1) % len(shape)
    gy = step.op("Mul", step.g, step.y)
    one = tuple(1 if i == axis else length for i, length in enumerate(shape))
    total = step.graph.with_axes("ReduceSum", gy, one, (axis,), keepdims=1)
    return [step.op("Sub", gy, step.op("Mul", total, step.y))]


def _either(step: Step, on: str, more: str, least: str) -> str:
    """`least`, plus `more` where `on` is 1: on * more + least."""
    return step.op("Add", step.op("Mul", on, more), least)
