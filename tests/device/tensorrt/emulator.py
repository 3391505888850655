"""An emulator of the module `tensorrt`: a member here is one of the real classes', by name and signature.

`module(version, cuda)` makes one of three shapes: "8.2" (bindings by number; old contexts are dead after a refit; a
Gemm's matrix is stored transposed where transB=0), "10.3" (tensors by name, a progress monitor) and "11.4" (types from
the graph alone). It computes in ONNX Runtime. What would be undefined with the real library, or crash it, is `Misuse`.
`tests/device/tensorrt/test_bindings.py` holds the members to the real bindings.
"""

import enum
import hashlib
import json
import sys
import weakref
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from tests.device.tensorrt.emulated_graph import Graph
from tests.device.tensorrt.emulated_values import (
    Dims,
    IHostMemory,
    ILogger,
    MemoryPoolType,
    Misuse,
    ParserError,
    Severity,
    TensorIOMode,
    Weights,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPERATORS = Path(__file__).parents[3] / "device_profiles" / "operators"
LISTS = {"8.2": "tensorrt-8.2.toml", "10.3": "tensorrt-10.1.toml", "11.4": "tensorrt-10.1.toml"}
ONNX_DTYPES = {
    "tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int32)": "INT32", "tensor(int64)": "INT64",
    "tensor(int8)": "INT8", "tensor(uint8)": "UINT8", "tensor(bool)": "BOOL",
}  # fmt: skip
NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT32": "i4", "INT64": "i8", "INT8": "i1", "UINT8": "u1", "BOOL": "?"}


def module(version: str, cuda: Any) -> Any:
    """The emulated module; `cuda` is a `cudart_emulator.Library`.

    Its `faults` maps a step ("parse", "build", "load", "context", "run", "refit") to the message with which it fails
    once; its `count` counts builds, refits and contexts.
    """
    trt: Any = ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)
    trt.__version__ = {"8.2": "8.2.1.8", "10.3": "10.3.0.30", "11.4": "11.4.0.106"}[version]
    trt.faults, trt.count, trt.first = {}, {"build": 0, "refit": 0, "context": 0}, None
    old = version == "8.2"
    allowed = tomllib.loads((OPERATORS / LISTS[version]).read_text(encoding="utf-8"))["operators"]

    def say(severity: Severity, text: str) -> None:
        logger = trt.first()
        if logger is None:
            raise Misuse("the logger that TensorRT was given first is gone")
        logger.log(severity, text)

    def take(logger: Any) -> None:
        if not isinstance(logger, ILogger):
            raise TypeError("incompatible constructor arguments")
        if trt.first is None:
            trt.first = weakref.ref(logger)
        elif trt.first() is not logger:
            say(Severity.WARNING, "The logger passed into an object differs from one already provided.")
        if not cuda.devices:
            say(Severity.ERROR, "CUDA initialization failure with error: 35")

    def fails(step: str) -> bool:
        if step in trt.faults:
            say(Severity.ERROR, trt.faults.pop(step))
            return True
        return False

    class BuilderFlag(enum.IntEnum):
        if version != "11.4":
            FP16 = 0
        REFIT = 4

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        if version != "11.4":
            EXPLICIT_BATCH = 0
        if not old:
            STRONGLY_TYPED = 1

    class DataType(enum.Enum):
        FLOAT, HALF, INT8, INT32, BOOL = range(1, 6)
        if not old:
            UINT8, INT64 = 6, 7

    class INetworkDefinition:
        def __init__(self, explicit: bool) -> None:
            self._explicit, self._model = explicit, b""

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    class IBuilderConfig:
        __slots__ = ("_flags", "_workspace", *(("max_workspace_size",) if old else ("progress_monitor",)))

        def __init__(self) -> None:
            self._flags: set[BuilderFlag] = set()
            self._workspace = 0
            if not old:
                self.progress_monitor = None

        def set_flag(self, flag: BuilderFlag) -> None:
            self._flags.add(BuilderFlag(flag))

        if not old:

            def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
                assert pool is MemoryPoolType.WORKSPACE
                self._workspace = pool_size

    class Builder:
        def __init__(self, logger: Any) -> None:
            take(logger)
            if not cuda.devices:
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            return INetworkDefinition(version == "11.4" or bool(flags & 1))

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
            trt.count["build"] += 1
            trt.workspace = getattr(config, "max_workspace_size", config._workspace)
            if fails("build"):
                return None
            if not network._explicit or not network._model:
                raise Misuse("a network without explicit batch, or that was not parsed")
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Building Engine", None, 2)
                monitor.phase_start("Tactic Selection", "Building Engine", 3)
                if not all(monitor.step_complete("Tactic Selection", step) for step in range(3)):
                    return None
                monitor.phase_finish("Tactic Selection")
                monitor.phase_finish("Building Engine")
            say(Severity.INFO, "Detected 1 inputs and 1 output network tensors.")
            half = any(flag.name == "FP16" for flag in config._flags)
            head = {"version": trt.__version__, "half": half, "refit": BuilderFlag.REFIT in config._flags}
            body = json.dumps(head).encode() + b"\n" + network._model
            return IHostMemory(hashlib.sha256(body).digest() + body)

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            take(logger)
            self._network = network
            self._errors: list[str] = []

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return ParserError(self._errors[index])

        def parse(self, model: bytes, path: str | None = None) -> bool:
            try:
                graph = onnx.load_from_string(model).graph
            except DecodeError:
                self._errors = ["Failed to parse ONNX model from file"]
                return False
            self._errors = [
                f"In node {i} (parseGraph): UNSUPPORTED_NODE: No importer registered for op: {node.op_type}"
                for i, node in enumerate(graph.node)
                if node.op_type not in allowed
            ]
            if fails("parse"):
                self._errors.append("Assertion failed")
            self._network._model = bytes(model)
            return not self._errors

    class Runtime:
        def __init__(self, logger: Any) -> None:
            take(logger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
            if not cuda.devices:
                raise Misuse("segmentation fault: there is no driver")
            if fails("load"):
                return None
            digest, body = serialized_engine[:32], serialized_engine[32:]
            if hashlib.sha256(body).digest() != digest:
                raise Misuse("an engine whose bytes are damaged: the real library need not notice")
            line, model = body.split(b"\n", 1)
            head = json.loads(line)
            if head["version"] != trt.__version__:
                say(Severity.ERROR, "Serialization (Serialization assertion failed. Version tag does not match.)")
                return None
            return ICudaEngine(Graph(model, head["half"]), head["refit"])

    class ICudaEngine:
        def __init__(self, graph: Graph, refittable: bool) -> None:
            self._graph, self._refits = graph, 0
            self._refittable = refittable
            session = graph.session
            self._io = [(value, True) for value in session.get_inputs()]
            self._io += [(value, False) for value in session.get_outputs()]

        @property
        def refittable(self) -> bool:
            return self._refittable

        def create_execution_context(self) -> "IExecutionContext | None":
            trt.count["context"] += 1
            return None if fails("context") else IExecutionContext(self)

        def _dtype(self, index: int) -> Any:
            name = ONNX_DTYPES[self._io[index][0].type]
            return DataType["INT32" if old and name == "INT64" else name]

        def _shape(self, index: int) -> Dims:
            return Dims(d if isinstance(d, int) else -1 for d in self._io[index][0].shape)

        def _index(self, name: str) -> int:
            return [value.name for value, _ in self._io].index(name)

        if old:

            @property
            def num_bindings(self) -> int:
                return len(self._io)

            def get_binding_name(self, index: int) -> str:
                return str(self._io[index][0].name)

            def binding_is_input(self, index: int) -> bool:
                return self._io[index][1]

            def get_binding_shape(self, index: int) -> Dims:
                return self._shape(index)

            def get_binding_dtype(self, index: int) -> Any:
                return self._dtype(index)

        else:

            @property
            def num_io_tensors(self) -> int:
                return len(self._io)

            def get_tensor_name(self, index: int) -> str:
                return str(self._io[index][0].name)

            def get_tensor_mode(self, name: str) -> TensorIOMode:
                return TensorIOMode.INPUT if self._io[self._index(name)][1] else TensorIOMode.OUTPUT

            def get_tensor_shape(self, name: str) -> Dims:
                return self._shape(self._index(name))

            def get_tensor_dtype(self, name: str) -> Any:
                return self._dtype(self._index(name))

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self._engine, self._refits = engine, engine._refits
            self._addresses: dict[str, int] = {}

        def _enqueue(self, addresses: list[int], stream: int) -> bool:
            engine = self._engine
            if old and self._refits != engine._refits:
                raise Misuse("a context from before the refit")
            if fails("run"):
                return False
            places = []
            for i, (value, is_input) in enumerate(engine._io):
                shape, dtype = engine._shape(i), np.dtype(NUMPY[engine._dtype(i).name])
                places.append((value.name, is_input, addresses[i], shape, dtype))

            def work() -> None:
                views = {
                    name: cuda.at(address, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
                    for name, _, address, shape, dtype in places
                }
                outputs = [name for name, is_input, *_ in places if not is_input]
                feeds = {name: views[name].copy() for name, is_input, *_ in places if is_input}
                for name, array in zip(outputs, engine._graph.session.run(outputs, feeds), strict=True):
                    views[name][...] = array

            cuda.enqueue(stream, work)
            return True

        if old:

            def execute_async_v2(self, bindings: list[int], stream_handle: int, input_consumed: Any = None) -> bool:
                if len(bindings) != len(self._engine._io):
                    raise Misuse("the bindings are not one address for each input and output")
                return self._enqueue(bindings, stream_handle)

        else:

            def set_tensor_address(self, name: str, memory: int) -> bool:
                if name not in [value.name for value, _ in self._engine._io]:
                    say(Severity.ERROR, f"Given invalid tensor name: {name}")
                    return False
                self._addresses[name] = memory
                return True

            def execute_async_v3(self, stream_handle: int) -> bool:
                for value, _ in self._engine._io:
                    if value.name not in self._addresses:
                        say(Severity.ERROR, f"Address is not set for tensor {value.name}.")
                        return False
                return self._enqueue([self._addresses[value.name] for value, _ in self._engine._io], stream_handle)

    class Refitter:
        def __init__(self, engine: ICudaEngine, logger: Any) -> None:
            take(logger)
            self._engine = engine
            self._given: dict[str, Weights] = {}

        def get_all_weights(self) -> list[str]:
            return list(self._engine._graph.floats)

        def get_missing_weights(self) -> list[str]:
            fused = self._engine._graph.fused
            pairs = [*fused.items(), *((bias, kernel) for kernel, bias in fused.items())]
            return [other for name, other in pairs if name in self._given and other not in self._given]

        def set_named_weights(self, name: str, weights: Weights) -> bool:
            graph = self._engine._graph
            if name not in graph.floats:
                say(Severity.ERROR, f"Given weights name {name} is not in the engine")
                return False
            if weights.size != numpy_helper.to_array(graph.tensors[name]).size:
                say(Severity.ERROR, f"{name} has a wrong count")
                return False
            self._given[name] = weights
            return True

        def refit_cuda_engine(self) -> bool:
            trt.count["refit"] += 1
            if not self._engine.refittable:
                raise Misuse("an engine without the flag REFIT")
            if fails("refit") or self.get_missing_weights():
                return False
            graph = self._engine._graph
            values = {}
            for name, weights in self._given.items():
                shape = numpy_helper.to_array(graph.tensors[name]).shape
                flat = weights.numpy().ravel()
                turned = old and graph.transposed(name)
                values[name] = flat.reshape(shape[::-1]).T.copy() if turned else flat.reshape(shape)
            graph.set(values)
            self._engine._refits += 1
            return True

    for value in (
        ILogger, Weights, BuilderFlag, NetworkDefinitionCreationFlag, DataType, INetworkDefinition, IBuilderConfig,
        Builder, OnnxParser, ParserError, IHostMemory, Runtime, ICudaEngine, IExecutionContext, Refitter,
        *(() if old else (TensorIOMode, MemoryPoolType, IProgressMonitor)),
    ):  # fmt: skip
        setattr(trt, value.__name__, value)
    return trt
