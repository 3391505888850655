"""What a list of class names must be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.class_names import class_names_error, said_in, said_of
from edgekit.errors import PayloadError


@given(st.lists(st.text(min_size=1).filter(str.isprintable), unique=True))
def test_different_printable_texts_are_names(names: list[str]) -> None:
    assert class_names_error(names, len(names)) is None and class_names_error(tuple(names), len(names)) is None
    assert class_names_error(names, len(names) + 1) is not None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "expected a list of texts"),
        ("ab", "class names 'ab': expected a list of texts"),
        ({"a": 1, "b": 2}, "expected a list of texts"),
        (["a"], "1 class names, expected 2"),
        (["a", ""], "class name '': expected a printable text"),
        (["a", "b\n"], "class name 'b\\n': expected a printable text"),
        (["a", "\ud800"], "expected a printable text"),
        (["a", ["b"]], "class name ['b']: expected a printable text"),
        (["a", "a"], "class name 'a' stands there twice"),
    ],
)
def test_others_are_refused(names: object, message: str) -> None:
    error = class_names_error(names, 2)
    assert error is not None and message in error and error.encode()  # can be shown


@given(st.lists(st.text(min_size=1).filter(str.isprintable), unique=True))
def test_a_file_says_them(names: list[str]) -> None:
    assert said_in({"other": "x", **said_of(names)}) == tuple(names)


@pytest.mark.parametrize("said", ["", "[", "{}", '"ab"', '["a", "a"]', '["a", 1]', "[" * 60_000])
def test_a_file_that_says_something_else_is_refused(said: str) -> None:
    with pytest.raises(PayloadError, match="class name"):
        said_in({"classes": said})
