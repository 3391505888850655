"""The Ascend backend: Huawei Ascend 310 and 310B, through pyACL and ATC.

An .om is a graph compiled by ATC for one chip, and its constants are fixed. New weights need a new .om, which takes
minutes to compile. So the learning graphs run in ONNX Runtime, and the .om is compiled again only when the deployed
graph is next used after learning: once per evaluation. Codebooks are inputs of the .om and change at no cost.
"""

import sys
import tempfile
from typing import Dict, Optional, Tuple

from edgekit.codecs.base import Arrays
from edgekit.runtime.backends import graphfile
from edgekit.runtime.backends.ascend import atc, calls
from edgekit.runtime.backends.ascend.model import Model
from edgekit.runtime.backends.ascend.process import process
from edgekit.runtime.backends.base import Backend


class Ascend(Backend):
    """One .om on device 0.

    A graph of fixed shapes is compiled when it is opened. One with an open dimension is compiled at its first run, and
    again whenever the length changes; the device profiles export fixed shapes alone.
    """

    backend_id = "ascend"
    learns_on = "onnxruntime"

    @classmethod
    def missing(cls) -> Optional[str]:
        return calls.missing()

    def _open(self, model: bytes) -> None:
        self._exported = self._onnx = model
        self._model: Optional[Model] = None
        self._shapes: Dict[str, Tuple[int, ...]] = {}
        parsed = graphfile.load(model, self.graph)
        graphfile.check_names(self.graph, parsed.inputs, parsed.outputs)
        self._places = graphfile.places(parsed, self.graph)
        # The .om keeps the file's order.
        self._outputs = sorted(self.graph.outputs, key=lambda spec: parsed.outputs.index(spec.name))
        shapes = {spec.name: spec.shape for spec in self.graph.inputs + self.graph.held}
        if all(length > 0 for shape in shapes.values() for length in shape):
            self._load(model, shapes)

    def _load(self, onnx: bytes, shapes: Dict[str, Tuple[int, ...]]) -> None:
        """Puts the .om of `onnx` for inputs of `shapes` in the place of the loaded one, which stays if that fails."""
        inputs = [spec._replace(shape=shapes[spec.name]) for spec in self.graph.inputs + self.graph.held]
        pyacl = process()
        job = atc.job(self.device, pyacl.chip(), inputs, self._outputs)
        name = job.name(self._exported, learned=onnx != self._exported)
        # From a file, which works everywhere: the memory that load_from_mem accepts differs between board and host.
        with tempfile.NamedTemporaryFile(suffix=".om") as om:
            om.write(atc.obtain(onnx, name, job, _say))
            om.flush()
            loaded = Model(pyacl, om.name, inputs, self._outputs)
        # Freeing the old one may fail: by then `self` holds the new one, so that `close` can free it.
        before, self._model, self._shapes, self._onnx = self._model, loaded, shapes, onnx
        if before is not None:
            before.close()

    def _run(self, feeds: Arrays) -> Arrays:
        shapes = {name: array.shape for name, array in feeds.items()}
        if self._model is None or shapes != self._shapes:
            self._load(self._onnx, shapes)
        assert self._model is not None
        return self._model.run(feeds)

    def _replace(self, constants: Arrays) -> None:
        onnx = graphfile.replaced(self._onnx, self._places, constants)
        if self._model is None:
            self._onnx = onnx
        elif onnx != self._onnx:
            self._load(onnx, self._shapes)

    def _close(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.close()


def _say(line: str) -> None:
    sys.stderr.write("ascend: {}\n".format(line))
    sys.stderr.flush()
