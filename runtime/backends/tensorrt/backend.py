"""The TensorRT backend: 8.2 (JetPack 4.6) to 11, on the GPU of an NVIDIA board.

::

    front.onnx --build--> engine bytes --cache--> engine --execute--> codes
                                                        ^
                           new weights, by the names of the ONNX initialisers (refit)

The learning graphs run in ONNX Runtime on the board's CPU. Where TensorRT versions differ, the code looks for the
member that it needs, not at the version number. Sources: NVIDIA/TensorRT `python/src/infer/pyCore.cpp`, release/8.2 to
11.1; onnx-tensorrt's importers.
"""

import hashlib
import importlib.util
import sys
from typing import Any, List, Optional

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.runtime import cache
from edgekit.runtime.backends import graphfile
from edgekit.runtime.backends.base import Backend
from edgekit.runtime.backends.tensorrt import build, cudart, execute
from edgekit.runtime.backends.tensorrt.messages import messages
from edgekit.runtime.backends.tensorrt.refit import Refit

NOT_INSTALLED = (
    "the Python module 'tensorrt' is not installed: on a Jetson it belongs to the system's own Python (apt-get install "
    "python3-libnvinfer), so use that one, or a venv made with --system-site-packages"
)


class TensorRt(Backend):
    """An engine of static shapes, built on this board or taken from the cache; new constants are refitted into it."""

    backend_id = "tensorrt"
    learns_on = "onnxruntime"

    @classmethod
    def missing(cls) -> Optional[str]:
        if importlib.util.find_spec("tensorrt") is None:
            return NOT_INSTALLED
        try:
            cudart.load().device_count()
        except BackendError as error:
            return str(error)
        return None

    def _open(self, model: bytes) -> None:
        self._cuda = cudart.load()
        # Asked before any TensorRT object is made: without a driver, that crashes the process.
        self._cuda.device_count()
        try:
            import tensorrt
        except (ImportError, OSError) as error:
            raise BackendError("{} ({})".format(NOT_INSTALLED, error)) from error
        self._trt = tensorrt
        self._messages = messages(tensorrt)
        self._execution: Optional[execute.Execution] = None
        self._refit: Optional[Refit] = None
        self._runtime: Any = None
        self._engine: Any = None
        try:
            self._start(model)
        except BaseException:
            self._close()
            raise

    def _start(self, model: bytes) -> None:
        parsed = graphfile.load(model, self.graph)
        self._check_static()
        with self._messages.during("TensorRT does not start"):
            self._runtime = self._trt.Runtime(self._messages.logger)
        self._engine = self._kept_or_built(model)
        io = execute.tensors(self._trt, self._engine)
        self._check_io(io)
        self._execution = execute.Execution(self._cuda, self._messages, self._engine, io)
        self._refit = Refit(
            self._trt, self._messages, self._engine, parsed, [spec.name for spec in self.graph.constants]
        )

    def _kept_or_built(self, model: bytes) -> Any:
        digest = hashlib.sha256(model).hexdigest()
        precision = self._precision()
        specs = self.graph.inputs + self.graph.held + self.graph.outputs
        key = {
            "model": digest,
            "TensorRT": str(self._trt.__version__),
            "CUDA": self._cuda.version(),
            "compute capability": self._cuda.compute_capability(),
            "precision": precision,
            "shapes": ", ".join("{} {} {}".format(spec.name, spec.dtype, list(spec.shape)) for spec in specs),
            "refit": "yes" if self.graph.constants else "no",
        }
        name = "{}-{}".format(self.backend_id, digest[:16])
        data = cache.load(name, key, self._say)
        if data is not None:
            try:
                return self._deserialized(data)
            except BackendError as error:
                self._say("{}; built anew".format(error))
        free, _ = self._cuda.memory()
        refit = bool(self.graph.constants)
        data = build.build(self._trt, self._messages, model, precision, refit, free, self._say)
        cache.store(name, key, data, self._say)
        return self._deserialized(data)

    def _deserialized(self, data: bytes) -> Any:
        with self._messages.during("the engine does not load"):
            engine = self._runtime.deserialize_cuda_engine(data)
            if engine is None:
                raise self._messages.error("the engine does not load")
            return engine

    def _run(self, feeds: Arrays) -> Arrays:
        assert self._execution is not None
        return self._execution.run(feeds)

    def _replace(self, constants: Arrays) -> None:
        assert self._execution is not None and self._refit is not None
        self._refit(constants, self._execution)

    def _close(self) -> None:
        # In this order: TensorRT wants contexts freed before their engine, and engines before their runtime.
        execution, self._execution = self._execution, None
        if execution is not None:
            execution.close()
        self._refit = self._engine = self._runtime = None

    def _precision(self) -> str:
        target = self.device.get("target")
        wanted = target.get("precision", "float32") if isinstance(target, dict) else "float32"
        if wanted not in ("float32", "float16"):
            raise BackendError("precision {!r} of the profile: expected float32 or float16".format(wanted))
        if wanted == "float16" and not build.has_float16(self._trt):
            version = self._trt.__version__
            self._say("TensorRT {} takes types from the graph: float32 instead of float16".format(version))
            return "float32"
        return str(wanted)

    def _check_static(self) -> None:
        specs = self.graph.inputs + self.graph.held + self.graph.outputs
        open_ones = [spec.name for spec in specs if -1 in spec.shape]
        if open_ones:
            raise BackendError(
                "{} have no fixed shape, and an engine is built for one: export with --device of this board, or with "
                "--static-batch".format(open_ones)
            )

    def _check_io(self, io: List[execute.Tensor]) -> None:
        """BackendError unless the engine's inputs and outputs are those of the spec."""
        fed = {spec.name for spec in self.graph.inputs + self.graph.held}
        wanted = {
            execute.Tensor(spec.name, spec.name in fed, spec.dtype, spec.shape)
            for spec in self.graph.inputs + self.graph.held + self.graph.outputs
        }
        if set(io) != wanted:
            found, expected = (", ".join(sorted(map(str, each))) for each in (io, wanted))
            raise BackendError("the engine has {}, its spec says {}: export it again".format(found, expected))

    def _say(self, line: str) -> None:
        sys.stderr.write("{} on {}: {}\n".format(self.graph.file, self.backend_id, line))
        sys.stderr.flush()
