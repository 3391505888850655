"""Gradient rules of arithmetic: sums, products and quotients, whose operands broadcast, and functions of one number."""

import math

from edgekit.export.gradients.step import Step, unbroadcast


def add(step: Step) -> list[str | None]:
    return [unbroadcast(step, step.g, i) if need else None for i, need in enumerate(step.needed)]


def sub(step: Step) -> list[str | None]:
    left, right = add(step)
    return [left, step.graph.op("Neg", [right], step.shape(1)) if right else None]


def mul(step: Step) -> list[str | None]:
    return [
        unbroadcast(step, step.op("Mul", step.g, other), i) if need else None
        for i, (need, other) in enumerate(zip(step.needed, reversed(step.node.input), strict=True))
    ]


def div(step: Step) -> list[str | None]:
    """d (a/b) = da / b - (a/b) * db / b."""
    share = step.op("Div", step.g, step.node.input[1])
    grads: list[str | None] = [unbroadcast(step, share, 0) if step.needed[0] else None, None]
    if step.needed[1]:
        total = unbroadcast(step, step.op("Mul", share, step.y), 1)
        grads[1] = step.graph.op("Neg", [total], step.shape(1))
    return grads


def neg(step: Step) -> list[str | None]:
    return [step.op("Neg", step.g)]


def exp(step: Step) -> list[str | None]:
    return [step.op("Mul", step.g, step.y)]


def sqrt(step: Step) -> list[str | None]:
    return [step.op("Div", step.op("Mul", step.g, step.scalar(0.5)), step.y)]


def erf(step: Step) -> list[str | None]:
    bell = step.op("Exp", step.op("Neg", step.op("Mul", step.x, step.x)))
    return [step.op("Mul", step.g, step.op("Mul", bell, step.scalar(2 / math.sqrt(math.pi))))]
