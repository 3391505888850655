"""The ACL backend: Huawei Ascend 310 and 310B, through pyACL and ATC.

An .om takes no new constants. So the graphs that learn run in ONNX Runtime, and new constants mean a new .om, which ATC
compiles in minutes: they reach the board when the deployed graph is next used after learning, once per evaluation.
Codebooks are inputs and change at no cost.
"""

import contextlib
import sys
import tempfile
from typing import Dict, Iterator, Optional, Tuple

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.runtime.backends.ascend import atc, calls
from edgekit.runtime.backends.ascend.model import Model
from edgekit.runtime.backends.ascend.process import process
from edgekit.runtime.backends.base import Backend
from edgekit.runtime.backends.constants import Constants


class Ascend(Backend):
    """One .om on device 0.

    A static graph is compiled when it is opened. One with an open dimension is compiled for each length that it is run
    with, at the first such run; the boards' profiles export static graphs alone.
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
        with self._named():
            self._constants = Constants(model, self.graph)
            shapes = {spec.name: spec.shape for spec in self.graph.inputs + self.graph.held}
            if all(length > 0 for shape in shapes.values() for length in shape):
                self._load(model, shapes)

    def _load(self, onnx: bytes, shapes: Dict[str, Tuple[int, ...]]) -> None:
        """Replaces the model by the .om of `onnx` for inputs of `shapes`; when that fails, it stays."""
        inputs = [spec._replace(shape=shapes[spec.name]) for spec in self.graph.inputs + self.graph.held]
        outputs = {spec.name: spec for spec in self.graph.outputs}
        given = [outputs[name] for name in self._constants.outputs]  # as the file has them, and then the .om
        pyacl = process()
        job = atc.job(self.device, pyacl.chip(), inputs, given)
        name = job.name(self._exported, learned=onnx != self._exported)
        # From a file, as every CANN can: which memory load_from_mem takes differs from board to host.
        with tempfile.NamedTemporaryFile(suffix=".om") as om:
            om.write(atc.obtain(onnx, name, job, _say))
            om.flush()
            loaded = Model(pyacl, om.name, inputs, given)
        # Before the old one is freed, which may fail: nothing may be loaded that nobody knows of.
        before, self._model, self._shapes, self._onnx = self._model, loaded, shapes, onnx
        if before is not None:
            before.close()

    def _run(self, feeds: Arrays) -> Arrays:
        with self._named():
            shapes = {name: array.shape for name, array in feeds.items()}
            if self._model is None or shapes != self._shapes:
                self._load(self._onnx, shapes)
            assert self._model is not None
            return self._model.run(feeds)

    def _replace(self, constants: Arrays) -> None:
        with self._named():
            onnx = self._constants.replaced(self._onnx, constants)
            if onnx == self._onnx:
                return
            if self._model is None:
                self._onnx = onnx
            else:
                self._load(onnx, self._shapes)

    def _close(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            with self._named():
                model.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the graph's name before what went wrong; ShapeError names it already."""
        try:
            yield
        except (BackendError, OSError) as error:
            raise BackendError("{} on {}: {}".format(self.graph.file, self.backend_id, error)) from error


def _say(line: str) -> None:
    sys.stderr.write("ascend: {}\n".format(line))
    sys.stderr.flush()
