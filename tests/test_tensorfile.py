"""The safetensors format, held to the library in both directions."""

import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import PayloadError, ShapeError
from edgekit.tensorfile import dumps, loads, metadata, write

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
SHAPES = [(), (1,), (0,), (5,), (2, 3), (3, 0, 2), (1, 2, 3, 4)]
#: A name that Rust takes (no half surrogate pairs) and that the format does not reserve.
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
arrays = st.dictionaries(
    names,
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    max_size=5,
)


def values(dtype, shape):
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def same(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype.newbyteorder("<") and got[name].shape == array.shape
        np.testing.assert_array_equal(got[name], array)


def file(header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_library(dtype, shape):
    given_arrays = {"weight": values(dtype, shape)}
    same(safetensors.numpy.load(dumps(given_arrays)), given_arrays)
    same(loads(safetensors.numpy.save(given_arrays)), given_arrays)
    assert dumps(given_arrays) == safetensors.numpy.save(given_arrays)


def test_equals_the_library_with_every_dtype_in_one_file():
    given_arrays = {f"{dtype}{shape}": values(dtype, shape) for dtype in DTYPES for shape in SHAPES}
    same(safetensors.numpy.load(dumps(given_arrays)), given_arrays)
    same(loads(safetensors.numpy.save(given_arrays, metadata={"by": "the library"})), given_arrays)


@given(arrays)
def test_what_is_written_comes_back_here_and_in_the_library(given_arrays):
    same(loads(dumps(given_arrays)), given_arrays)
    same(safetensors.numpy.load(dumps(given_arrays)), given_arrays)
    same(loads(safetensors.numpy.save(given_arrays)), given_arrays)


def test_the_bytes():
    header = (
        b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1,2],"data_offsets":[1,9]}}'
    )
    raw = dumps({"b": np.array([[1, -2]], dtype=np.float32), "a": np.array(255, dtype=np.uint8)})
    assert raw == struct.pack("<Q", 112) + header.ljust(112) + bytes.fromhex("ff0000803f000000c0")


def test_equal_arrays_give_equal_bytes_whatever_their_order_in_memory():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = dumps({"a": array, "b": array})
    assert dumps({"b": np.asfortranarray(array), "a": np.arange(12, dtype=np.float32)[::2].reshape(2, 3) / 2}) == plain
    assert dumps({"a": array.astype(">f4"), "b": array}) == plain


def test_a_file_says_texts_of_itself_as_the_library_reads_them(tmp_path):
    path = tmp_path / "file"
    write(str(path), {"a": np.ones(2)}, {"of": "öne"})
    assert metadata(path.read_bytes()) == {"of": "öne"} and list(loads(path.read_bytes())) == ["a"]
    with safetensors.safe_open(path, "numpy") as opened:
        assert opened.metadata() == {"of": "öne"}
    assert metadata(dumps({"a": np.ones(2)})) == {}


@pytest.mark.parametrize("said", [[], "x", {"a": 1}, {"a": ["b"]}, None])
def test_metadata_that_is_no_texts_is_refused(said):
    with pytest.raises(PayloadError, match="expected texts by name"):
        metadata(file({"__metadata__": said}))


def test_arrays_come_back_as_copies():
    read = loads(dumps({"a": np.zeros(3)}))
    read["a"][0] = 1


@pytest.mark.parametrize("dtype", ["c8", "S3", "O", "M8[s]", "f4,f4"])
def test_a_dtype_that_the_format_lacks_is_refused(dtype):
    with pytest.raises(ShapeError, match=r"tensor 'odd' is .*, expected one of float64, float32"):
        dumps({"odd": np.zeros(2, dtype)})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "file of 0 B, expected at least 8"),
        (b"\x08" + bytes(6), "file of 7 B"),
        (struct.pack("<Q", 1) + b"", "header of 1 B ends past the file of 8 B"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "ends past the file"),
        (file(b""), "does not parse"),
        (file(b"{"), "does not parse"),
        (file(b"\xff\xff"), "does not parse"),
        (file(b"[" * 60_000), "does not parse"),
        (file([]), "does not parse"),
        (file({"a": []}), "does not parse"),
        (file({"a": {}}), "does not parse"),
        (file({"a": {"dtype": "F32", "shape": []}}), "data_offsets"),
        (file({"a": entry([1], 0, 4, "F31")}, bytes(4)), "F31"),
        (file({"a": entry([1], 0, 4, ["F32"])}, bytes(4)), "does not parse"),
        (file({"a": entry([-1], 0, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry([-1, -1], 0, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry([True], 0, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry([1.0], 0, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry(["1"], 0, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry("", 0, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry({}, 0, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry([1], False, 4)}, bytes(4)), "not all counts"),
        (file({"a": entry([1], 0, 4.0)}, bytes(4)), "not all counts"),
        (file({"a": entry([1], -4, 0)}, bytes(4)), "not all counts"),
        (file({"a": dict(entry([1], 0, 4), data_offsets=[0, 4, 8])}, bytes(8)), "does not parse"),
        (file({"a": entry([1], 0, 8)}, bytes(8)), "'a' does not fit its bytes 0..8"),
        (file({"a": entry([2], 0, 4)}, bytes(4)), "'a' does not fit its bytes 0..4"),
        (file({"a": entry([1], 4, 0)}, bytes(4)), "'a' does not fit its bytes 4..0"),
        (file({"a": entry([1], 0, 4)}, bytes(3)), "'a' does not fit its bytes 0..4"),
        (file({"a": entry([2**62, 4], 0, 0)}), "'a' does not fit"),
        (file({"a": entry([1], 2**64, 2**64 + 4)}, bytes(4)), "'a' does not fit"),
        (file({"a": entry([0, 2**70], 0, 0)}), r"'a' of shape \[0, 1180591620717411303424\]"),
        (file({"a": entry([1] * 100, 0, 4)}, bytes(4)), "'a' of shape"),
        (file({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, bytes(8)), "'b' does not fit its bytes 4..8"),
        (file({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)), "'b' does not fit its bytes 0..4"),
        (file({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)), "'b' does not fit its bytes 8..12"),
        (file({"a": entry([1], 0, 4)}, bytes(5)), "1 B after the last tensor"),
        (file({}, bytes(1)), "1 B after the last tensor"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(data, reason):
    with pytest.raises(PayloadError, match=reason) as caught:
        loads(data)
    assert 0 <= caught.value.offset <= len(data)
    with pytest.raises((safetensors.SafetensorError, ValueError)):  # numpy's own, for a rank of 100
        safetensors.numpy.load(data)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(file))
def test_any_bytes_are_arrays_or_a_payload_error(data):
    with contextlib.suppress(PayloadError):
        loads(data)


ODD: list[Any] = [-1, 0, 1, 2, 3, 4, 8, 12, 2**31, 2**63, 2**70, True, 4.0, None, "4", [], {}]
odd = st.sampled_from(ODD)


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F64", "BOOL", "F8_E4M3", "", None, 4, []]),
                "shape": st.lists(odd, max_size=3) | odd,
                "data_offsets": st.tuples(odd, odd) | st.lists(odd, max_size=3) | odd,
            }
        ),
        max_size=3,
    ),
    st.binary(max_size=16),
)
def test_any_header_is_arrays_or_a_payload_error_and_what_passes_here_passes_the_library(header, data):
    raw = file(header, data)
    try:
        read = loads(raw)
    except PayloadError:
        return
    theirs = safetensors.numpy.load(raw)
    assert {name: a.tobytes() for name, a in read.items()} == {name: a.tobytes() for name, a in theirs.items()}


@given(arrays, st.data())
def test_a_truncated_file_is_refused(given_arrays, data):
    raw = dumps(given_arrays)
    with pytest.raises(PayloadError):
        loads(raw[: data.draw(st.integers(0, len(raw) - 1))])
