"""The ONNX Runtime backend, on the CPU."""

import importlib.util
from typing import Any, Dict, Optional, Tuple, Type

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, PayloadError
from edgekit.runtime import onnxfile
from edgekit.runtime.backends.base import Backend
from edgekit.tensors import check_all


class OnnxRuntime(Backend):
    """An inference session. To replace constants, it patches the model's bytes and starts a new session over them.

    `SessionOptions.add_initializer` would need no patching. But a session (1.31) silently ignores it for every
    initialiser that an optimisation folds away, such as the weights of a Conv with a BatchNormalization behind it.
    """

    backend_id = "onnxruntime"

    @classmethod
    def missing(cls) -> Optional[str]:
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed: pip install onnxruntime"
        return None

    def _open(self, model: bytes) -> None:
        self._model = model
        self._raw = self._places(model) if self.graph.constants else {}
        self._session = self._start(model)
        self._names = [spec.name for spec in self.graph.outputs]
        takes = {value.name for value in self._session.get_inputs()}
        gives = {value.name for value in self._session.get_outputs()}
        fed = {spec.name for spec in self.graph.inputs + self.graph.held}
        if takes != fed or not gives.issuperset(self._names):
            raise self._error(
                "the graph takes {} and gives {}, its spec says {} and {}: export it again".format(
                    sorted(takes), sorted(gives), sorted(fed), sorted(self._names)
                )
            )

    def _places(self, model: bytes) -> Dict[str, Tuple[int, int]]:
        """Constant -> (first byte, end) of its values in `model`, so that they can be patched there."""
        try:
            parsed = onnxfile.load(model)
        except PayloadError as error:
            raise self._error("{}: export the graph again".format(error)) from None
        names = [spec.name for spec in self.graph.constants]
        stored = {name: parsed.initializers[name] for name in names if name in parsed.initializers}
        check_all(self.graph.constants, stored, "initialisers of {}".format(self.graph.file))
        elsewhere = sorted(set(names) - set(parsed.raw))
        if elsewhere:
            raise self._error("constants {} cannot be replaced: export them as raw_data".format(elsewhere))
        return {name: parsed.raw[name] for name in names}

    def _start(self, model: bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _failures() as error:
            raise self._error("the graph does not load: {}".format(error)) from error

    def _run(self, feeds: Arrays) -> Arrays:
        try:
            outputs = self._session.run(self._names, feeds)
        except _failures() as error:
            raise self._error("the run failed: {}".format(error)) from error
        return dict(zip(self._names, outputs))

    def _replace(self, constants: Arrays) -> None:
        patched = bytearray(self._model)
        for name, array in constants.items():
            start, end = self._raw[name]
            patched[start:end] = array.astype(array.dtype.newbyteorder("<")).tobytes()
        model = bytes(patched)
        self._session = self._start(model)
        self._model = model

    def _close(self) -> None:
        del self._session

    def _error(self, message: str) -> BackendError:
        return BackendError("{} on {}: {}".format(self.graph.file, self.backend_id, message))


def _failures() -> Tuple[Type[Exception], ...]:
    """The exceptions of onnxruntime: its own classes have no common base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (RuntimeError, ValueError, *own)
