"""The ONNX Runtime backend, on the CPU."""

import importlib.util
from typing import Any, Optional, Tuple, Type

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.runtime.backends import graphfile
from edgekit.runtime.backends.base import Backend


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
        self._places = graphfile.places(graphfile.load(model, self.graph), self.graph) if self.graph.constants else {}
        self._session = self._start(model)
        self._names = [spec.name for spec in self.graph.outputs]
        takes = [value.name for value in self._session.get_inputs()]
        gives = [value.name for value in self._session.get_outputs()]
        graphfile.check_names(self.graph, takes, gives)

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
            raise BackendError("the graph does not load: {}".format(error)) from error

    def _run(self, feeds: Arrays) -> Arrays:
        try:
            outputs = self._session.run(self._names, feeds)
        except _failures() as error:
            raise BackendError("the run failed: {}".format(error)) from error
        return dict(zip(self._names, outputs))

    def _replace(self, constants: Arrays) -> None:
        model = graphfile.replaced(self._model, self._places, constants)
        self._session = self._start(model)
        self._model = model

    def _close(self) -> None:
        del self._session


def _failures() -> Tuple[Type[Exception], ...]:
    """The exceptions of onnxruntime: its own classes have no common base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (RuntimeError, ValueError, *own)
