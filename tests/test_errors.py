"""The tree of errors: what its drawing says is what the classes are."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from edgekit import errors
from edgekit.errors import EdgekitError, PayloadError, UnknownName

CLASSES: dict[str, Any] = {
    name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == "edgekit.errors"
}


def drawn() -> Iterator[tuple[str, int, str | None]]:
    """(name, exit code, name of the class above) per line of the drawing."""
    above: list[str] = []
    for indent, name, code in re.findall(r"^ {4}([│├└─ ]*)(\w+) +(\d+) {3}\w", str(errors.__doc__), re.MULTILINE):
        depth = len(indent) // 4
        del above[depth:]
        yield name, int(code), above[-1] if above else None
        above.append(name)


def test_the_drawing_is_the_tree():
    rows = list(drawn())
    assert {name for name, _, _ in rows} == set(CLASSES)
    for name, code, parent in rows:
        assert CLASSES[name].exit_code == code
        assert CLASSES[name].__bases__[0].__name__ == (parent or "Exception")


def test_every_class_has_an_exit_code_of_its_own():
    codes = {name: cls.exit_code for name, cls in CLASSES.items() if cls is not UnknownName}
    assert sorted(codes.values()) == list(range(1, len(codes) + 1))
    assert UnknownName.exit_code == errors.UsageError.exit_code  # the shell's code for wrong usage


def test_every_class_says_what_it_is_for():
    assert all(cls.__doc__ and issubclass(cls, EdgekitError) for cls in CLASSES.values())


@pytest.mark.parametrize("name", ["UsageError", "ShapeError", "PayloadError"])
def test_wrong_values_are_value_errors_too(name):
    assert issubclass(CLASSES[name], ValueError)


def test_a_payload_error_carries_its_offset():
    error = PayloadError("codes beyond the codebook", 12)
    assert error.offset == 12 and str(error) == "codes beyond the codebook (at byte 12)"


def test_an_unknown_name_offers_near_ones():
    error = UnknownName("model", "mobilnet", ["vgg11", "resnet18", "mobilenet_v1"], "`edgekit models` lists them")
    assert error.near == ["mobilenet_v1"]
    assert str(error) == "unknown model 'mobilnet': did you mean mobilenet_v1? `edgekit models` lists them"


def test_of_several_near_names_the_nearest_comes_first():
    error = UnknownName("model", "resnet19", iter(["resnet34", "resnet18", "vgg11"]), "list")
    assert error.near == ["resnet18", "resnet34"]
    assert "did you mean resnet18 or resnet34?" in str(error)


def test_with_nothing_near_it_only_says_how_to_list():
    error = UnknownName("codec", "zzz", {"raw": 1, "sgq": 2}, "there are: raw, sgq")
    assert error.near == [] and str(error) == "unknown codec 'zzz': there are: raw, sgq"
