"""An ONNX file's bytes with new values for its constants."""

from typing import Dict, Tuple

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, PayloadError
from edgekit.runtime import onnxfile
from edgekit.tensors import check_all


class Constants:
    """Where the constants of `graph` lie in `model`, the bytes of its file. BackendError when it is another graph's.

    `outputs` are the names of the file's outputs, in its order.
    """

    def __init__(self, model: bytes, graph: GraphSpec) -> None:
        try:
            parsed = onnxfile.load(model)
        except PayloadError as error:
            raise BackendError("{}: export the graph again".format(error)) from None
        self.outputs = parsed.outputs
        fed = sorted(spec.name for spec in graph.inputs + graph.held)
        given = sorted(spec.name for spec in graph.outputs)
        if fed != sorted(parsed.inputs) or given != sorted(parsed.outputs):
            raise BackendError(
                "the graph takes {} and gives {}, its spec says {} and {}: export it again".format(
                    sorted(parsed.inputs), sorted(parsed.outputs), fed, given
                )
            )
        names = [spec.name for spec in graph.constants]
        stored = {name: parsed.initializers[name] for name in names if name in parsed.initializers}
        check_all(graph.constants, stored, "initialisers of {}".format(graph.file))
        elsewhere = sorted(set(names) - set(parsed.raw))
        if elsewhere:
            raise BackendError("constants {} cannot be replaced: export them as raw_data".format(elsewhere))
        self._places: Dict[str, Tuple[int, int]] = {name: parsed.raw[name] for name in names}

    def replaced(self, model: bytes, values: Arrays) -> bytes:
        """`model` with `values` for the constants of these names."""
        patched = bytearray(model)
        for name, array in values.items():
            start, end = self._places[name]
            patched[start:end] = array.astype(array.dtype.newbyteorder("<")).tobytes()
        return bytes(patched)
