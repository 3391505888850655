"""States: what comes back is what was given, and damaged bytes are told."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import tensorfile
from edgekit.errors import PayloadError, ShapeError
from edgekit.statefile import DEEPEST, dumps, loads

numbers = st.integers(-(2**130), 2**130) | st.floats(allow_nan=False) | st.booleans() | st.none()
arrays = st.builds(
    lambda kind, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind),
    st.sampled_from(["f4", "f8", "i8", "i4", "u1", "?"]),
    st.lists(st.integers(0, 3), max_size=3),
)
states = st.recursive(
    numbers | st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(got: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return isinstance(got, np.ndarray) and got.dtype == expected.dtype and np.array_equal(got, expected)
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[key], expected[key]) for key in expected)
    return type(got) is type(expected) and bool(got == expected)


@given(states)
def test_a_state_comes_back(state: Any) -> None:
    assert same(loads(dumps(state)), state)


def test_equal_states_give_equal_bytes() -> None:
    first = {"a": np.zeros(2), "b": {"c": np.ones(3, np.int32), "d": 1}}
    second = {"b": {"d": 1, "c": np.ones(3, np.int32)}, "a": np.zeros(2)}
    assert dumps(first) == dumps(second) != dumps({**first, "a": np.zeros(3)})


def test_a_generator_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(3)
    rng.normal(size=5)
    other = np.random.default_rng(0)
    other.bit_generator.state = loads(dumps(rng.bit_generator.state))
    np.testing.assert_array_equal(rng.normal(size=9), other.normal(size=9))


@pytest.mark.parametrize("state", [{"": 1}, {1: 2}, object(), {"a": [b"x"]}, np.zeros(2, np.complex64)])
def test_what_is_no_state(state: Any) -> None:
    with pytest.raises(ShapeError):
        dumps(state)


@given(states, st.data())
def test_a_changed_byte_never_gives_another_state(state: Any, data: st.DataObject) -> None:
    good = dumps(state)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with contextlib.suppress(PayloadError):
        assert same(loads(bad), state)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(PayloadError):
        loads(data)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"tree": "1"},
        {"tree": "1", "check": "5"},
        {"tree": "[", "check": "0"},
        {"tree": '{"":"000000"}', "check": "0"},
        {"tree": '{"":[1]}', "check": "0"},
        {"tree": "[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "check": "0"},
    ],
)
def test_files_of_another_kind(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    if said.get("check") == "0":
        monkeypatch.setattr("edgekit.statefile.checksum", lambda tree, arrays: 0)
    with pytest.raises(PayloadError, match="state"):
        loads(tensorfile.dumps({}, said))
