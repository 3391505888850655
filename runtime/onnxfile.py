"""Model: what the bytes of an ONNX file say, read without the onnx library, which has no wheels for old boards.

It reads the protobuf wire format and those fields of onnx.proto that a backend needs. Subgraphs, sparse tensors and
weights in external files are refused. Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. A test compares
this with the onnx library.
"""

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from edgekit.errors import PayloadError

#: TensorProto.DataType -> numpy dtype, little-endian as the file is.
DTYPES: Dict[int, "np.dtype[Any]"] = {
    1: np.dtype("<f4"), 2: np.dtype("|u1"), 3: np.dtype("|i1"), 6: np.dtype("<i4"), 7: np.dtype("<i8"),
    9: np.dtype("|b1"), 10: np.dtype("<f2"), 11: np.dtype("<f8"),
}  # fmt: skip
#: DataType -> (number of the typed field that may hold its values, encoding of a value in that field).
_TYPED = {
    1: (4, "<f4"), 2: (5, "varint"), 3: (5, "varint"), 6: (5, "varint"), 7: (7, "varint"), 9: (5, "varint"),
    10: (5, "varint"), 11: (10, "<f8"),
}  # fmt: skip
#: DataType -> the dtype that its typed field's integers have, where it is not the DataType's own.
_BITS: Dict[int, "np.dtype[Any]"] = {9: np.dtype("|u1"), 10: np.dtype("<u2")}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_RANK = 32  # numpy's limit up to 1.x
_MAX_VALUES = 1 << 31
#: First byte, and the byte after the last.
_Span = Tuple[int, int]


class Node(NamedTuple):
    """One operator. An omitted optional input is "". An `op` that is not of ONNX's own domain is "domain::Type"."""

    op: str
    name: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    #: int, float, str, list of int, list of float, or array.
    attributes: Dict[str, Any]


class Model(NamedTuple):
    """A graph. `inputs` are without initialisers, which old files list there too."""

    ir_version: int
    #: Version of ONNX's own operator set.
    opset: int
    nodes: Tuple[Node, ...]
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    initializers: Dict[str, np.ndarray]
    #: Initialiser -> (first byte, end) of its values in the file; only those stored as raw_data are here.
    raw: Dict[str, _Span]


class _Field(NamedTuple):
    number: int
    wire: int
    #: Of a varint; 0 otherwise.
    value: int
    #: Where the content lies.
    start: int
    end: int


def load(data: bytes) -> Model:
    """The model in `data`; PayloadError, and no other error, for bytes that are no ONNX file."""
    model = _message(data, (0, len(data)))
    opset = None
    for field in model.get(8, []):
        entry = _message(data, _span(field))
        if _text(data, entry, 1) in ("", "ai.onnx"):
            opset = _integer(entry, 2)
    if opset is None or 7 not in model:
        raise PayloadError("no ONNX model: it lacks a graph or the version of its operator set", len(data))
    graph = _message(data, *(_span(field) for field in model[7]))
    if 15 in graph:
        raise PayloadError("sparse initialisers are not read here: store them dense", graph[15][0].start)
    initializers = {}
    raw = {}
    for field in graph.get(5, []):
        name, array, span = _tensor(data, _span(field))
        initializers[name] = array
        if span is not None:
            raw[name] = span
    return Model(
        _integer(model, 1),
        opset,
        tuple(_node(data, _span(field)) for field in graph.get(1, [])),
        tuple(name for name in _value_names(data, graph.get(11, [])) if name not in initializers),
        _value_names(data, graph.get(12, [])),
        initializers,
        raw,
    )


def _value_names(data: bytes, fields: List[_Field]) -> Tuple[str, ...]:
    return tuple(_text(data, _message(data, _span(field)), 1) for field in fields)


def _node(data: bytes, span: _Span) -> Node:
    node = _message(data, span)
    name, op, domain = (_text(data, node, number) for number in (3, 4, 7))
    attributes = {}
    for field in node.get(5, []):
        key, value = _attribute(data, _span(field))
        attributes[key] = value
    return Node(
        op if domain in ("", "ai.onnx") else domain + "::" + op,
        name,
        tuple(_decode(data, _span(field)) for field in node.get(1, [])),
        tuple(_decode(data, _span(field)) for field in node.get(2, [])),
        attributes,
    )


def _attribute(data: bytes, span: _Span) -> Tuple[str, Any]:
    attribute = _message(data, span)
    name = _text(data, attribute, 1)
    kind = _integer(attribute, 20)
    if kind == 1:  # FLOAT
        floats = _numbers(data, attribute.get(2, []), "<f4")
        return name, float(floats[-1]) if len(floats) else 0.0
    if kind == 2:  # INT
        return name, _integer(attribute, 3)
    if kind == 3:  # STRING
        return name, _text(data, attribute, 4)
    if kind == 4:  # TENSOR
        if 5 not in attribute:
            raise PayloadError("attribute '{}' is a tensor without a value".format(name), span[0])
        return name, _tensor(data, _span(attribute[5][-1]))[1]
    if kind == 6:  # FLOATS
        return name, [float(value) for value in _numbers(data, attribute.get(7, []), "<f4")]
    if kind == 7:  # INTS
        return name, _numbers(data, attribute.get(8, []), "varint").tolist()
    raise PayloadError(
        "attribute '{}' is of type {}; FLOAT, INT, STRING, TENSOR, FLOATS and INTS are read here".format(name, kind),
        span[0],
    )


def _tensor(data: bytes, span: _Span) -> Tuple[str, np.ndarray, Optional[_Span]]:
    tensor = _message(data, span)
    name = _text(data, tensor, 8)
    kind = _integer(tensor, 2)
    if kind not in DTYPES:
        raise PayloadError("tensor '{}' is of data type {}, which is not read here".format(name, kind), span[0])
    if 3 in tensor or 13 in tensor or _integer(tensor, 14):
        raise PayloadError("tensor '{}' lies in segments or in another file: save it whole".format(name), span[0])
    shape = _numbers(data, tensor.get(1, []), "varint").tolist()
    count = size = 1
    for dimension in shape:
        count *= dimension
        size *= max(dimension, 1)
    if len(shape) > _MAX_RANK or min(shape, default=0) < 0 or size > _MAX_VALUES:
        raise PayloadError("tensor '{}' has the impossible shape {}".format(name, shape[:_MAX_RANK]), span[0])
    bits = _BITS.get(kind, DTYPES[kind])
    raw = None
    if 9 in tensor:
        raw = _span(tensor[9][-1])
        if (raw[1] - raw[0]) % bits.itemsize:
            raise PayloadError("tensor '{}' of {} has {} B".format(name, DTYPES[kind], raw[1] - raw[0]), raw[0])
        numbers = np.frombuffer(data[raw[0] : raw[1]], bits)
    else:
        number, how = _TYPED[kind]
        numbers = _numbers(data, tensor.get(number, []), how)
    if len(numbers) != count:
        raise PayloadError("tensor '{}' of shape {} has {} values".format(name, shape, len(numbers)), span[0])
    values = numbers.astype(bits)
    if kind == 9:
        values = (values > 0).astype(bits)
    if bits.kind != "f" and not np.array_equal(values, numbers):
        raise PayloadError("tensor '{}' has values beyond {}".format(name, DTYPES[kind]), span[0])
    values = values.view(DTYPES[kind])
    return name, values.astype(values.dtype.newbyteorder("="), copy=False).reshape(shape), raw


def _numbers(data: bytes, fields: List[_Field], how: str) -> np.ndarray:
    """The values of a repeated field, packed or not: int64 where `how` is "varint", else of dtype `how`."""
    if how == "varint":
        varints: List[int] = []
        for field in fields:
            if field.wire == _VARINT:
                varints.append(_signed(field.value))
                continue
            at, end = _span(field)
            while at < end:
                value, at = _varint(data, at, end)
                varints.append(_signed(value))
        return np.array(varints, dtype=np.int64)
    chunks = []
    for field in fields:
        if field.wire == _VARINT or (field.end - field.start) % np.dtype(how).itemsize:
            raise PayloadError("values of {} do not fill their bytes".format(how), field.start)
        chunks.append(data[field.start : field.end])
    return np.frombuffer(b"".join(chunks), how)


def _message(data: bytes, *pieces: _Span) -> Dict[int, List[_Field]]:
    """The fields of a message by number; the pieces of a message, as the format says, are joined."""
    fields: Dict[int, List[_Field]] = {}
    for start, end in pieces:
        for field in _fields(data, start, end):
            fields.setdefault(field.number, []).append(field)
    return fields


def _fields(data: bytes, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        key_at = at
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        value = 0
        start = at
        if wire == _VARINT:
            value, at = _varint(data, at, end)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        elif wire == _BYTES:
            length, start = _varint(data, at, end)
            at = start + length
        if number == 0 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise PayloadError("no protobuf: field {} of wire type {}".format(number, wire), key_at)
        if at > end:
            raise PayloadError("field {} ends at byte {}, its message at {}".format(number, at, end), key_at)
        yield _Field(number, wire, value, start, at)


def _varint(data: bytes, at: int, end: int) -> Tuple[int, int]:
    """(value below 2**64, where the next field starts)."""
    value = 0
    for i in range(10):
        if at + i >= end:
            break
        byte = data[at + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise PayloadError("a varint does not end within 10 bytes or its message", at)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _integer(message: Dict[int, List[_Field]], number: int) -> int:
    if number not in message:
        return 0
    field = message[number][-1]
    if field.wire != _VARINT:
        raise PayloadError("field {} is of wire type {}, expected a varint".format(number, field.wire), field.start)
    return _signed(field.value)


def _text(data: bytes, message: Dict[int, List[_Field]], number: int) -> str:
    return _decode(data, _span(message[number][-1])) if number in message else ""


def _span(field: _Field) -> _Span:
    if field.wire != _BYTES:
        raise PayloadError("field {} is of wire type {}, expected bytes".format(field.number, field.wire), field.start)
    return field.start, field.end


def _decode(data: bytes, span: _Span) -> str:
    try:
        return data[span[0] : span[1]].decode()
    except UnicodeDecodeError as error:
        raise PayloadError("a name is no UTF-8", span[0] + error.start) from None
