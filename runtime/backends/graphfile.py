"""An ONNX file of a bundle: whether it is the graph that its spec describes, and new values for its constants."""

from typing import Dict, Iterable, Tuple

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, PayloadError
from edgekit.runtime import onnxfile
from edgekit.tensors import check_all

#: Constant -> (first byte, end) of its values in the file.
Places = Dict[str, Tuple[int, int]]


def load(model: bytes, graph: GraphSpec) -> onnxfile.Model:
    """`model`, the bytes of the file of `graph`, parsed. ShapeError when its initialisers are not the constants."""
    try:
        parsed = onnxfile.load(model)
    except PayloadError as error:
        raise BackendError("{}: export the graph again".format(error)) from None
    constants = {spec.name for spec in graph.constants}
    stored = {name: array for name, array in parsed.initializers.items() if name in constants}
    check_all(graph.constants, stored, "initialisers of {}".format(graph.file))
    return parsed


def check_names(graph: GraphSpec, takes: Iterable[str], gives: Iterable[str]) -> None:
    """BackendError unless a file that takes and gives tensors of these names is that of `graph`; it may give more."""
    fed = {spec.name for spec in graph.inputs + graph.held}
    wanted = {spec.name for spec in graph.outputs}
    if fed != set(takes) or not wanted.issubset(gives):
        told = "the graph takes {} and gives {}, its spec says {} and {}: export it again"
        raise BackendError(told.format(sorted(takes), sorted(gives), sorted(fed), sorted(wanted)))


def places(parsed: onnxfile.Model, graph: GraphSpec) -> Places:
    """The places of the constants of `graph`; BackendError when one cannot be replaced there."""
    elsewhere = sorted({spec.name for spec in graph.constants} - set(parsed.raw))
    if elsewhere:
        raise BackendError("constants {} cannot be replaced: export them as raw_data".format(elsewhere))
    return {spec.name: parsed.raw[spec.name] for spec in graph.constants}


def replaced(model: bytes, places: Places, values: Arrays) -> bytes:
    """`model` with `values` for the constants of these names."""
    patched = bytearray(model)
    for name, array in values.items():
        start, end = places[name]
        patched[start:end] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return bytes(patched)
