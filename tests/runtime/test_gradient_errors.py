from edgekit.runtime.gradient_errors import GradientErrors


def test_mean_and_largest_of_what_was_measured() -> None:
    errors = GradientErrors()
    errors.add(None)
    assert errors.told() == {}
    for error in (0.5, None, 0.25, 0.0):
        errors.add(error)
    assert errors.told() == {"gradient_error": 0.25, "largest_error": 0.5}
