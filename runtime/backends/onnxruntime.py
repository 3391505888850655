"""The ONNX Runtime backend, on the CPU or on another of its execution providers."""

import importlib.util
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

import numpy as np

from edgekit.errors import BackendError
from edgekit.providers import CPU, PROVIDERS, Choice, choose
from edgekit.runtime.backends import graphfile
from edgekit.runtime.backends.base import Backend, Fed, Kept

#: The first version that can be told not to run on the CPU what a provider lacks a kernel for.
STRICT = (1, 17)
#: The name of the size of the batch in the graphs of a bundle.
BATCH = "n"


class OrtKept(Kept):
    """A tensor in the memory of a provider."""

    def __init__(self, value: Any, dtype: "np.dtype[Any]", shape: Tuple[int, ...]) -> None:
        self.value = value
        self.dtype, self.shape = dtype, shape

    def array(self) -> np.ndarray:
        return np.asarray(self.value.numpy())


class OnnxRuntime(Backend):
    """An inference session, or one for each size of the batch where the provider wants to know that.

    What goes in and comes out is bound (`io_binding`), so that outputs stay in the provider's memory until they are
    asked for. To replace constants, it patches the model's bytes and starts a new session over them.
    `SessionOptions.add_initializer` would need no patching. But a session (1.31) silently ignores it for every
    initialiser that an optimisation folds away, such as the weights of a Conv with a BatchNormalization behind it.
    """

    backend_id = "onnxruntime"

    @classmethod
    def missing(cls) -> Optional[str]:
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed: pip install onnxruntime"
        return None

    @classmethod
    def provider_for(cls, asked: str, exported_for: str) -> Choice:
        import onnxruntime

        found = choose(asked, exported_for, onnxruntime.get_available_providers())
        version = onnxruntime.__version__
        if found.name == CPU or tuple(int(part) for part in version.split(".")[:2]) >= STRICT:
            return found
        told = "; ONNX Runtime {} does not say what it runs on the CPU instead, version {}.{} does"
        return found._replace(reason=found.reason + told.format(version, *STRICT))

    def _open(self, model: bytes) -> None:
        self._where = PROVIDERS[self.provider]
        self._model = model
        self._places = graphfile.places(graphfile.load(model, self.graph), self.graph) if self.graph.constants else {}
        self._names = [spec.name for spec in self.graph.outputs]
        #: Size of the batch, None for any -> session.
        self._sessions: Dict[Optional[int], Any] = {}
        if not self._where.static:
            self._sessions[None] = self._start(model, None)

    def _start(self, model: bytes, batch: Optional[int]) -> Any:
        session = self._load(model, batch, {"session.disable_cpu_ep_fallback": "1"} if self.provider != CPU else {})
        if session.get_providers()[0] != self._where.name:
            told = "provider '{}' does not start here, and ONNX Runtime took {} instead; it has said why above: {}"
            raise BackendError(told.format(self.provider, ", ".join(session.get_providers()), self._where.install))
        takes = [value.name for value in session.get_inputs()]
        gives = [value.name for value in session.get_outputs()]
        graphfile.check_names(self.graph, takes, gives)
        return session

    def _load(self, model: bytes, batch: Optional[int], entries: Mapping[str, str]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        if batch is not None:
            options.add_free_dimension_override_by_name(BATCH, batch)
        settings = dict(self._where.options)
        if self._where.threads:
            settings[self._where.threads] = str(self.threads)
        try:
            return onnxruntime.InferenceSession(model, options, providers=[(self._where.name, settings)])
        except _failures() as error:
            if "fallback to CPU EP has been explicitly disabled" not in str(error):
                raise BackendError("the graph does not load: {}".format(error)) from error
        raise BackendError(
            "provider '{}' has no kernel for {}: ONNX Runtime would run that on the CPU; run with --provider cpu, or "
            "cut before these layers".format(self.provider, self._without_kernel(model, batch))
        )

    def _without_kernel(self, model: bytes, batch: Optional[int]) -> str:
        """The nodes of `model` that the provider leaves to the CPU, in words."""
        session = self._load(model, batch, {"session.record_ep_graph_assignment_info": "1"})
        if not hasattr(session, "get_provider_graph_assignment_info"):  # before 1.24
            return "some nodes of this graph"
        left: List[str] = []
        for part in session.get_provider_graph_assignment_info():
            if part.ep_name == PROVIDERS[CPU].name:
                left += ["{} '{}'".format(node.op_type, node.name) for node in part.get_nodes()]
        return ", ".join(left[:5]) + (" and {} more".format(len(left) - 5) if len(left) > 5 else "")

    def place(self, array: np.ndarray) -> Kept:
        if self._where.memory == "cpu":
            # An OrtValue would do as well, but the array that it gives out is gone when it is (ONNX Runtime 1.31).
            return Kept(array)
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._where.memory, 0)
        return OrtKept(value, array.dtype, array.shape)

    def _run(self, feeds: Dict[str, Any]) -> Dict[str, Fed]:
        session = self._session(feeds)
        # The session reads the arrays where they are: they must be contiguous, and there until it has run.
        feeds = {name: fed if isinstance(fed, OrtKept) else np.ascontiguousarray(fed) for name, fed in feeds.items()}
        try:
            binding = session.io_binding()
            for name, fed in feeds.items():
                if isinstance(fed, OrtKept):
                    binding.bind_ortvalue_input(name, fed.value)
                else:
                    binding.bind_cpu_input(name, fed)
            for name in self._names:
                binding.bind_output(name, self._where.memory)
            session.run_with_iobinding(binding)
            values = binding.get_outputs()
        except _failures() as error:
            raise BackendError("the run failed: {}".format(error)) from error
        return {
            spec.name: OrtKept(value, _dtype(value), tuple(value.shape()))
            for spec, value in zip(self.graph.outputs, values)
        }

    def _session(self, feeds: Dict[str, Any]) -> Any:
        """The session for `feeds`; a provider of static sizes loads the graph at the first batch of a size."""
        sized = [spec.name for spec in self.graph.inputs if spec.shape[:1] == (-1,)]
        batch = feeds[sized[0]].shape[0] if self._where.static and sized else None
        if batch not in self._sessions:
            self._sessions[batch] = self._start(self._model, batch)
        return self._sessions[batch]

    def _replace(self, constants: Dict[str, np.ndarray]) -> None:
        model = graphfile.replaced(self._model, self._places, constants)
        sessions = {batch: self._start(model, batch) for batch in self._sessions}
        self._model, self._sessions = model, sessions

    def _close(self) -> None:
        del self._sessions


def _dtype(value: Any) -> "np.dtype[Any]":
    """numpy's dtype of an OrtValue, which calls itself "tensor(float)"."""
    name = value.data_type()[len("tensor(") : -1]
    return np.dtype(str({"float": "float32", "double": "float64"}.get(name, name)))


def _failures() -> Tuple[Type[Exception], ...]:
    """The exceptions of onnxruntime: its own classes have no common base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (RuntimeError, ValueError, *own)
