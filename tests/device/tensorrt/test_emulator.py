"""The emulators see what the backend must not do: without this, a test that passes on them would say little."""

import gc
from typing import Any

import numpy as np
import pytest

from edgekit.errors import BackendError
from edgekit.runtime.backends.tensorrt import build, execute
from edgekit.runtime.backends.tensorrt.cudart import Cudart
from edgekit.runtime.backends.tensorrt.messages import Messages, messages
from tests.device.tensorrt.board import BOOK, CONSTANTS, X, expected, model
from tests.device.tensorrt.cudart_emulator import Library
from tests.device.tensorrt.emulated_values import Misuse
from tests.device.tensorrt.emulator import module

VERSIONS = ["8.2", "10.3", "11.4"]


class Loaded:
    """An engine that is built and loaded, with its buffers, by the calls that the backend makes."""

    def __init__(self, version: str) -> None:
        self.library = Library()
        self.cuda = Cudart(self.library)
        self.trt = module(version, self.library)
        self.messages = messages(self.trt)
        data = build.build(self.trt, self.messages, model(), "float32", True, 1 << 20, lambda line: None)
        self.engine = self.trt.Runtime(self.messages.logger).deserialize_cuda_engine(data)
        self.io = execute.tensors(self.trt, self.engine)

    def refitter(self) -> Any:
        return self.trt.Refitter(self.engine, self.messages.logger)


@pytest.fixture(params=VERSIONS)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return Loaded(request.param)


def test_a_context_from_before_a_refit() -> None:
    for version, survives in (("8.2", False), ("10.3", True)):
        here = Loaded(version)
        execution = execute.Execution(here.cuda, here.messages, here.engine, here.io)
        assert here.refitter().refit_cuda_engine()
        if survives:
            execution.run({"x": X, "book": BOOK})
        else:
            with pytest.raises(Misuse, match="before the refit"):
                execution.run({"x": X, "book": BOOK})
        execution.close()


def test_an_address_that_is_the_hosts(loaded: Loaded) -> None:
    execution = execute.Execution(loaded.cuda, loaded.messages, loaded.engine, loaded.io)
    array = np.zeros(1000, dtype=np.float32)
    execution._addresses[0] = array.ctypes.data
    execution.start()
    with pytest.raises(BackendError, match="cudaErrorIllegalAddress"):
        execution.run({"x": X, "book": BOOK})
    # And every call after it, as with the real library.
    with pytest.raises(BackendError, match="cudaMalloc gave cudaErrorIllegalAddress"):
        loaded.cuda.malloc(1)


def test_memory_that_was_freed_or_is_too_small(loaded: Loaded) -> None:
    cuda, stream = loaded.cuda, loaded.cuda.stream()
    array = np.zeros(8, dtype=np.float32)
    small = cuda.malloc(31)
    cuda.to_device(small, array, stream)
    with pytest.raises(BackendError, match="cudaStreamSynchronize gave cudaErrorIllegalAddress"):
        cuda.synchronize(stream)
    other = Cudart(Library())
    address = other.malloc(32)
    other.free(address)
    with pytest.raises(BackendError, match="cudaFree gave cudaErrorInvalidValue"):
        other.free(address)
    with pytest.raises(BackendError, match=r"cudaErrorMemoryAllocation.*static-batch"):
        other.malloc(1 << 40)


def test_results_are_there_after_the_stream_and_not_before(loaded: Loaded) -> None:
    cuda, stream = loaded.cuda, loaded.cuda.stream()
    address, sent, got = cuda.malloc(16), np.arange(4, dtype=np.int32), np.zeros(4, dtype=np.int32)
    cuda.to_device(address, sent, stream)
    cuda.to_host(got, address, stream)
    assert not got.any()
    cuda.synchronize(stream)
    np.testing.assert_array_equal(got, sent)


def test_arrays_that_are_gone_before_the_refit(loaded: Loaded) -> None:
    refitter = loaded.refitter()
    assert refitter.set_named_weights("mix", loaded.trt.Weights(np.ones((4, 4), np.float32)))
    gc.collect()
    with pytest.raises(Misuse, match="was freed"):
        refitter.refit_cuda_engine()


def test_weights_that_are_fused_come_together(loaded: Loaded) -> None:
    refitter, kernel = loaded.refitter(), CONSTANTS["weight"]
    assert refitter.set_named_weights("weight", loaded.trt.Weights(kernel))
    assert refitter.get_missing_weights() == ["bias"] and not refitter.refit_cuda_engine()
    assert not refitter.set_named_weights("weight", loaded.trt.Weights(kernel[:1].copy()))
    assert not refitter.set_named_weights("wieght", loaded.trt.Weights(kernel))


def test_8_2_stores_the_matrix_of_a_gemm_transposed() -> None:
    """Given as it is in the file, it computes something else: so the backend's turning is seen to be needed."""
    differing = {}
    for version in VERSIONS:
        here = Loaded(version)
        mix = np.arange(16, dtype=np.float32).reshape(4, 4)
        refitter = here.refitter()
        assert refitter.set_named_weights("mix", here.trt.Weights(mix)) and refitter.refit_cuda_engine()
        execution = execute.Execution(here.cuda, here.messages, here.engine, here.io)
        feature = execution.run({"x": X, "book": BOOK})["feature"]
        execution.close()
        differing[version] = not np.allclose(feature, expected({"mix": mix})["feature"], rtol=1e-4)
    assert differing == {"8.2": True, "10.3": False, "11.4": False}


def test_a_logger_that_is_gone(loaded: Loaded) -> None:
    trt = module("10.3", loaded.library)
    logger = Messages(trt).logger
    trt.Runtime(logger)
    del logger
    gc.collect()
    with pytest.raises(Misuse, match="logger"):
        trt.Runtime(loaded.trt.ILogger())


def test_no_driver_no_mercy() -> None:
    trt = module("10.3", Library(devices=0))
    runtime = trt.Runtime(messages(trt).logger)
    with pytest.raises(Misuse, match="segmentation fault"):
        runtime.deserialize_cuda_engine(b"")


def test_an_engine_of_another_version_or_without_the_flag(loaded: Loaded) -> None:
    other = module("10.3" if loaded.trt.__version__.startswith("8.") else "8.2", loaded.library)
    data = build.build(other, messages(other), model(), "float32", False, 1 << 20, lambda line: None)
    assert loaded.trt.Runtime(loaded.messages.logger).deserialize_cuda_engine(data) is None
    engine = other.Runtime(messages(other).logger).deserialize_cuda_engine(data)
    assert not engine.refittable
    with pytest.raises(Misuse, match="REFIT"):
        other.Refitter(engine, messages(other).logger).refit_cuda_engine()
