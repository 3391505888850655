"""A serialised TensorRT engine from the bytes of an ONNX file, built on the board that will run it.

TensorRT 8.2 to 11 differ only in the names below; the code looks for a name and compares no version numbers.
"""

import time
from typing import Any, Callable, List

from edgekit.runtime.backends.tensorrt.messages import Messages

#: Share of the free memory that kernels may use as scratch space; the rest is for weights, buffers and the builder.
WORKSPACE_SHARE = 0.5
#: Seconds between two lines of progress.
PAUSE_S = 2.0

Say = Callable[[str], None]


def has_float16(trt: Any) -> bool:
    """Whether the builder can choose float16. TensorRT 11 cannot: types are the graph's, and that has float32."""
    return hasattr(trt.BuilderFlag, "FP16")


def build(trt: Any, messages: Messages, model: bytes, precision: str, refit: bool, free: int, say: Say) -> bytes:
    """The engine's bytes. `free` is the free device memory in bytes; `say` is called with lines of progress.

    BackendError with TensorRT's words when it refuses the graph or finds no kernels.
    """
    with messages.during("the engine cannot be built"):
        builder = trt.Builder(messages.logger)
        network = builder.create_network(_network_flags(trt))
        parser = trt.OnnxParser(network, messages.logger)
        if not parser.parse(model):
            raise messages.error("the graph is refused", "; ".join(_parser_errors(parser)))
        config = builder.create_builder_config()
        workspace = int(free * WORKSPACE_SHARE)
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        else:
            config.max_workspace_size = workspace
        if precision == "float16":
            config.set_flag(trt.BuilderFlag.FP16)
        if refit:
            config.set_flag(trt.BuilderFlag.REFIT)
        say("building in {}, {} MiB of scratch memory; it takes minutes on a small board".format(
            precision, workspace >> 20))  # fmt: skip
        start = time.perf_counter()
        if hasattr(config, "progress_monitor") and hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _monitor(trt, say)
            engine = builder.build_serialized_network(network, config)
        else:
            messages.listener = say
            try:
                engine = builder.build_serialized_network(network, config)
            finally:
                messages.listener = None
        if engine is None:
            raise messages.error("the engine cannot be built")
        say("built in {:.1f} s".format(time.perf_counter() - start))
        return bytes(engine)


def _network_flags(trt: Any) -> int:
    """The flag for an explicit batch dimension; none in TensorRT 11, which knows nothing else."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_errors(parser: Any) -> List[str]:
    return [parser.get_error(i).desc() for i in range(parser.num_errors)]


def _monitor(trt: Any, say: Say) -> Any:
    """A progress monitor: calls `say` with the step that the build is at, every `PAUSE_S` seconds at most."""
    lengths = {}
    last = [time.perf_counter()]

    def phase_start(_: Any, phase_name: str, parent_phase: Any, num_steps: int) -> None:
        lengths[phase_name] = num_steps

    def step_complete(_: Any, phase_name: str, step: int) -> bool:
        if time.perf_counter() - last[0] >= PAUSE_S:
            last[0] = time.perf_counter()
            say("{}: {} of {}".format(phase_name, step + 1, lengths.get(phase_name, "?")))
        return True  # False would cancel the build

    def phase_finish(_: Any, phase_name: str) -> None:
        lengths.pop(phase_name, None)

    # Made at run time, because its base class exists only where TensorRT is installed.
    methods = {"phase_start": phase_start, "step_complete": step_complete, "phase_finish": phase_finish}

    def initialise(self: Any) -> None:
        trt.IProgressMonitor.__init__(self)

    return type("Monitor", (trt.IProgressMonitor,), dict(methods, __init__=initialise))()
