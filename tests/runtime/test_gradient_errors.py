"""How far gradients were off, as events tell it."""

from edgekit.line.messages import Gradient
from edgekit.runtime.gradient_errors import GradientErrors


def reply(deviation: float, error: float | None, gradient: bytes = b"g") -> Gradient:
    return Gradient(1, 0, 0.5, 7, deviation, 0.125, gradient, 0.1, error=error, local_only=not gradient)


def test_mean_and_largest_are_of_what_was_measured() -> None:
    errors = GradientErrors()
    assert errors.told() == {"gradient_deviation": 0.0}
    errors.add(reply(0.5, None))
    assert errors.told() == {"gradient_deviation": 0.5}
    for error in (0.25, None, 0.75):
        errors.add(reply(1.0, error))
    # Steps without a gradient are no part of it.
    errors.add(reply(0.0, None, b""))
    assert errors.told() == {"gradient_deviation": 0.875, "gradient_error": 0.5, "largest_error": 0.75}
