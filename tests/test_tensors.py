"""TensorSpec: the check at a boundary, and its JSON."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import ShapeError
from edgekit.tensors import DTYPES, TensorSpec, check_all, spec_from_json

FEATURE = TensorSpec("feature", "float32", (-1, 8, 4, 4))


@pytest.mark.parametrize("n", [0, 1, 5])
def test_the_batch_may_have_any_length(n):
    FEATURE.check(np.zeros((n, 8, 4, 4), np.float32), "front")


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((1, 8, 4, 4)), r"float64 \[1, 8, 4, 4\]"),
        (np.zeros((1, 8, 4, 4), ">f4"), r">f4 \[1, 8, 4, 4\]"),
        (np.zeros((1, 8, 4, 5), np.float32), r"float32 \[1, 8, 4, 5\]"),
        (np.zeros((8, 4, 4), np.float32), r"float32 \[8, 4, 4\]"),
        (np.zeros((1, 1, 8, 4, 4), np.float32), r"float32 \[1, 1, 8, 4, 4\]"),
        (np.float32(1).reshape(()), r"float32 \[\]"),
    ],
)
def test_another_dtype_or_shape_is_refused(array, got):
    with pytest.raises(ShapeError, match=r"front: 'feature' is " + got + r", expected float32 \[-1, 8, 4, 4\]"):
        FEATURE.check(array, "front")


def test_check_all_wants_exactly_the_tensors_named():
    low = TensorSpec("low", "float32", (1,))
    feature = np.zeros((2, 8, 4, 4), np.float32)
    one = np.zeros(1, np.float32)
    check_all((FEATURE, low), {"low": one, "feature": feature}, "front")
    check_all((), {}, "front")
    with pytest.raises(ShapeError, match=r"front: got tensors \['low'\], expected \['feature', 'low'\]"):
        check_all((FEATURE, low), {"low": one}, "front")
    with pytest.raises(ShapeError, match=r"got tensors \['feature', 'high', 'low'\]"):
        check_all((FEATURE, low), {"low": one, "feature": feature, "high": one}, "front")
    with pytest.raises(ShapeError, match="'low' is float64"):
        check_all((FEATURE, low), {"low": one.astype(float), "feature": feature}, "front")


@given(
    st.builds(
        TensorSpec, st.text(), st.sampled_from(DTYPES), st.lists(st.integers(-1, 2**31 - 1), max_size=5).map(tuple)
    )
)
def test_json_and_back(spec):
    assert spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_numpys_own_names(dtype):
    assert np.dtype(dtype).name == dtype


@pytest.mark.parametrize(
    "changed",
    [
        {"name": None}, {"name": 3}, {"dtype": None}, {"dtype": "f4"}, {"dtype": "(1 2f4,i4"}, {"dtype": "object"},
        {"dtype": ["float32"]},
        {"shape": None}, {"shape": ""}, {"shape": "12"}, {"shape": {}}, {"shape": [1.0]}, {"shape": [True]},
        {"shape": ["1"]},
        {"shape": [-2]}, {"shape": [2**31]}, {"shape": [[1]]}, {"shape": 3},
    ],
    ids=str,
)  # fmt: skip
def test_other_json_is_refused(changed):
    with pytest.raises(ValueError, match="is no"):
        spec_from_json({**FEATURE.to_json(), **changed})


@pytest.mark.parametrize("key", ["name", "dtype", "shape"])
def test_a_missing_field_is_named(key):
    value = FEATURE.to_json()
    del value[key]
    with pytest.raises(KeyError, match=key):
        spec_from_json(value)
