"""edgekit.runtime.onnxfile against the onnx library, and against damaged files."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import PayloadError
from edgekit.runtime import onnxfile

ARRAYS: dict[int, np.ndarray] = {
    TensorProto.FLOAT: np.array([[1.5, -2.25, np.inf], [0.0, -0.0, 1e-40]], dtype=np.float32),
    TensorProto.UINT8: np.array([0, 1, 255], dtype=np.uint8),
    TensorProto.INT8: np.array([-128, 0, 127], dtype=np.int8),
    TensorProto.INT32: np.array([-(2**31), -1, 2**31 - 1], dtype=np.int32),
    TensorProto.INT64: np.array([-(2**63), -1, 0, 2**63 - 1], dtype=np.int64),
    TensorProto.BOOL: np.array([True, False, True]),
    TensorProto.FLOAT16: np.array([1.5, -65504, 6e-8, np.inf], dtype=np.float16),
    TensorProto.DOUBLE: np.array([[1e300], [-1 / 3]], dtype=np.float64),
}


def model(nodes, initializers=(), inputs=("x",), outputs=("y",), opset=17):
    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])

    graph = helper.make_graph(nodes, "graph", list(map(value, inputs)), list(map(value, outputs)), list(initializers))
    opsets = [helper.make_opsetid("com.example", 3), helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def small():
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", ""], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2], auto_pad="NOTSET"
        ),
        helper.make_node("LeakyRelu", ["c"], ["r"], alpha=0.25),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(4, dtype=np.int64), "k")),
        helper.make_node("Upsample", ["r"], ["u"], scales=[1.0, 0.5, -2.0], axis=-1),
        helper.make_node("Fancy", ["u", "k", "b"], ["y"], domain="com.example"),
    ]
    initializers = [
        numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2), "w"),
        helper.make_tensor("b", TensorProto.INT64, [2], [3, -4]),
    ]
    return model(nodes, initializers, inputs=("x", "w"))


SMALL = small().SerializeToString()


def test_model_is_what_the_library_reads():
    theirs = onnx.load_from_string(SMALL)
    ours = onnxfile.load(SMALL)
    assert (ours.ir_version, ours.opset) == (theirs.ir_version, 17)
    assert ours.inputs == ("x",), "an initialiser listed as an input is no input"
    assert ours.outputs == ("y",)
    assert [node.op for node in ours.nodes] == ["Conv", "LeakyRelu", "Constant", "Upsample", "com.example::Fancy"]
    for node, expected in zip(ours.nodes, theirs.graph.node, strict=True):
        assert node.name == expected.name
        assert node.inputs == tuple(expected.input)
        assert node.outputs == tuple(expected.output)
        assert set(node.attributes) == {attribute.name for attribute in expected.attribute}
        for attribute in expected.attribute:
            value, got = helper.get_attribute_value(attribute), node.attributes[attribute.name]
            if isinstance(value, TensorProto):
                np.testing.assert_array_equal(got, numpy_helper.to_array(value), strict=True)
            else:
                assert got == (value.decode() if isinstance(value, bytes) else value)
                assert type(got) is (str if isinstance(value, bytes) else type(value))
    assert set(ours.initializers) == {"w", "b"}
    for tensor in theirs.graph.initializer:
        np.testing.assert_array_equal(ours.initializers[tensor.name], numpy_helper.to_array(tensor), strict=True)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("kind", sorted(ARRAYS), ids=TensorProto.DataType.Name)
def test_every_data_type(kind, raw):
    array = ARRAYS[kind]
    tensor = numpy_helper.from_array(array, "w") if raw else helper.make_tensor("w", kind, array.shape, array.ravel())
    assert raw == tensor.HasField("raw_data")
    data = model([], [tensor]).SerializeToString()
    loaded = onnxfile.load(data)
    np.testing.assert_array_equal(loaded.initializers["w"], array, strict=True)
    assert set(loaded.raw) == ({"w"} if raw else set())
    if raw:
        start, end = loaded.raw["w"]
        assert data[start:end] == array.tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_scalars_and_empty_tensors(shape):
    array = np.zeros(shape, dtype=np.float32)
    loaded = onnxfile.load(model([], [numpy_helper.from_array(array, "w")]).SerializeToString())
    np.testing.assert_array_equal(loaded.initializers["w"], array, strict=True)


def test_packed_and_unpacked_attributes_and_split_graphs_are_the_same():
    ints = b"\x0a\x01a\x42\x02\x05\x06\x40\x07\xa0\x01\x07"  # a = [5, 6 (packed), 7 (not)], type INTS
    node = b"\x22\x01N\x2a" + bytes([len(ints)]) + ints
    graph = b"\x0a" + bytes([len(node)]) + node
    opset = b"\x42\x02\x10\x0d"
    piece = b"\x3a" + bytes([len(graph)]) + graph
    loaded = onnxfile.load(piece + opset + piece)
    assert [node.attributes for node in loaded.nodes] == [{"a": [5, 6, 7]}] * 2
    merged = onnx.load_from_string(piece + opset + piece)
    assert [list(node.attribute[0].ints) for node in merged.graph.node] == [[5, 6, 7]] * 2


def test_varints_beyond_64_bits_are_cut_as_protobuf_cuts_them():
    data = model([], [tensor_with(dims=[])]).SerializeToString()
    huge = b"\xff" * 9 + b"\x7f"
    for at in range(len(data)):
        loads_or_refuses(data[:at] + huge + data[at + 1 :])
    ints = b"\x0a\x01a\x42\x0a" + huge + b"\xa0\x01\x07"
    node = b"\x22\x01N\x2a" + bytes([len(ints)]) + ints
    graph = b"\x0a" + bytes([len(node)]) + node
    loaded = onnxfile.load(b"\x42\x02\x10\x0d\x3a" + bytes([len(graph)]) + graph)
    assert loaded.nodes[0].attributes == {"a": [-1]}


def tensor_with(**changes):
    tensor = numpy_helper.from_array(np.ones((2, 3), dtype=np.float32), "w")
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(tensor, name)[:]
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (tensor_with(dims=[2, 2]), r"'w' of shape \[2, 2\] has 6 values"),
        (tensor_with(dims=[-2, -3]), "impossible shape"),
        (tensor_with(dims=[2**62, 2**62]), "impossible shape"),
        (tensor_with(dims=[0, 2**62]), "impossible shape"),
        (tensor_with(dims=[1] * 40), "impossible shape"),
        (tensor_with(raw_data=b"123"), "'w' of float32 has 3 B"),
        (tensor_with(data_type=TensorProto.STRING), "data type 8"),
        (tensor_with(data_type=12345), "data type 12345"),
        (tensor_with(data_location=TensorProto.EXTERNAL), "in another file"),
        (TensorProto(name="w", data_type=TensorProto.UINT8, dims=[1], int32_data=[256]), "beyond uint8"),
        (TensorProto(name="w", data_type=TensorProto.BOOL, dims=[1], int32_data=[-1]), "beyond bool"),
        (TensorProto(name="w", data_type=TensorProto.BOOL, dims=[1], raw_data=b"\x02"), "beyond bool"),
    ],
)
def test_wrong_tensors_are_refused(tensor, words):
    with pytest.raises(PayloadError, match=words):
        onnxfile.load(model([], [tensor]).SerializeToString())


@pytest.mark.parametrize(
    ("data", "offset", "words"),
    [
        (b"", 0, "lacks a graph"),
        (b"\xff" * 20, 0, "varint does not end"),
        (b"\x08", 1, "varint does not end"),
        (b"\x0b", 0, "wire type 3"),
        (b"\x00\x00", 0, "field 0"),
        (b"\x3a\x05ab", 0, "ends at byte 7, its message at 4"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0, "ends at byte"),
        (b"\x38\x01\x42\x02\x10\x0d", 1, "expected bytes"),
        (b"\x42\x02\x10\x0d\x3a\x04\x62\x02\x0a\x00\x42\x03\x0a\x01\xff", 14, "no UTF-8"),
    ],
)
def test_wrong_wire_formats_name_the_offset(data, offset, words):
    with pytest.raises(PayloadError, match=words) as caught:
        onnxfile.load(data)
    assert caught.value.offset == offset


def test_subgraphs_and_sparse_initialisers_are_refused():
    branch = helper.make_graph([], "branch", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(PayloadError, match=r"'(then|else)_branch' is of type 5"):
        onnxfile.load(model([node]).SerializeToString())
    sparse = model([])
    sparse.graph.sparse_initializer.add()
    with pytest.raises(PayloadError, match="sparse"):
        onnxfile.load(sparse.SerializeToString())


@given(st.binary(max_size=200))
def test_any_bytes_give_a_model_or_a_payload_error(data):
    loads_or_refuses(data)


@given(st.data())
def test_mutated_models_give_a_model_or_a_payload_error(draw):
    data = bytearray(SMALL)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(data)))
        replacement = draw.draw(st.binary(max_size=4) | st.sampled_from([b"\xff" * 9 + b"\x01", b"\x80" * 12]))
        data[at : at + draw.draw(st.integers(0, 4))] = replacement
    loads_or_refuses(bytes(data[: draw.draw(st.integers(0, len(data)) | st.just(len(data)))]))


def loads_or_refuses(data):
    try:
        loaded = onnxfile.load(data)
    except PayloadError as error:
        assert 0 <= error.offset <= len(data)
    else:
        for name, (start, end) in loaded.raw.items():
            assert data[start:end] == loaded.initializers[name].tobytes()


def test_every_single_byte_and_truncation_of_a_real_model():
    for at in range(len(SMALL)):
        loads_or_refuses(SMALL[:at])
        for flipped in (SMALL[at] ^ 1, SMALL[at] ^ 0x80, 0, 0xFF):
            loads_or_refuses(SMALL[:at] + bytes([flipped]) + SMALL[at + 1 :])
