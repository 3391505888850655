"""The emulated TensorRT and the backend against NVIDIA's own Python bindings, which need no GPU to be looked at.

* `tensorrt_bindings` of 8.6.1, 10.3.0 (JetPack 6.2's version) and 11.4: the whole API, builder and parser included. The
  libraries behind them are hundreds of MB, so they get empty ones, with the few functions that the bindings link to.
* `tensorrt_lean` 10.16.1.11 with its real library: what is there to run and to refit an engine, and what happens
  without a driver.
"""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.bundle import Bundle
from tests.device.tensorrt.cudart_emulator import Library
from tests.device.tensorrt.emulator import module
from tests.package_index import pip

LEAN = ("tensorrt-lean-cu12-bindings==10.16.1.11", "tensorrt-lean-cu12-libs==10.16.1.11")
CUDART = ("nvidia-cuda-runtime-cu12==12.9.79",)
#: Emulated version -> the bindings that it is held to. No 8.2 is on the index; 8.6 still has everything that 8.2 has.
FULL = {
    "8.2": "tensorrt-bindings==8.6.1",
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "11.4": "tensorrt-cu12-bindings==11.4.0.106",
}
#: What the bindings link to, C and mangled C++ names; the parsers of Caffe and UFF were in 8.6 still.
FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins", "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv", "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
)  # fmt: skip

#: Prints class -> member -> null for a value or property, or the parameters of each overload, "name=" where optional.
DUMP = """
import importlib, json, re, sys
trt = importlib.import_module(sys.argv[1])

def overloads(name, doc):
    found = []
    for line in (doc or "").splitlines():
        match = re.match(r"(?:[0-9]+[.] )?%s[(](.*)[)]( -> .*)?$" % re.escape(name), line.strip())
        if match and not match.group(1).startswith("*args"):
            depth, parts = 0, [""]
            for char in match.group(1):
                depth += (char in "[(<") - (char in "])>")
                if char == "," and not depth:
                    parts.append("")
                else:
                    parts[-1] += char
            found.append([re.split("[:=]", part)[0].strip() + "=" * (" = " in part) for part in parts][1:])
    return found

def members(cls):
    return {
        name: overloads(name, getattr(cls, name).__doc__) if callable(getattr(cls, name)) else None
        for name in dir(cls) if not name.startswith("__") or name == "__init__"
    }

print(json.dumps({name: members(value) for name, value in vars(trt).items() if isinstance(value, type)}))
"""


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a scratch environment."""
    folder = tmp_path_factory.mktemp("bindings") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder], check=True, timeout=300)
    return str(folder / "bin" / "python")


def fetch(python: str, folder: Path, *requirements: str) -> Path:
    """A folder with the unpacked wheels; skips where the index or a wheel for this Python is not there."""
    pip(python, "install", "--no-deps", "--target", str(folder), *requirements, may_lack=True)
    return folder


Done = subprocess.CompletedProcess[str]
Members = dict[str, dict[str, list[list[str]] | None]]


def run(where: list[Path], code: str, *arguments: str, libraries: Path | None = None) -> Done:
    path = os.pathsep.join(map(str, [*where, Path(edgekit.__file__).parent.parent]))
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "LD_LIBRARY_PATH": str(libraries or "")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables)


@pytest.fixture(scope="session", params=FULL)
def full(request: Any, scratch: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """An emulated version, the real bindings that it is held to, and the empty libraries for them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here to make the empty libraries with that the bindings link to")
    version, folder = request.param, tmp_path_factory.mktemp("full")
    site = fetch(scratch, folder / "site", FULL[version])
    source = folder / "empty.c"
    source.write_text("\n".join(f"void *f{i}(void) __asm__(\"{name}\"); void *f{i}(void) {{ return 0; }}"
                                for i, name in enumerate(FUNCTIONS)))  # fmt: skip
    major = FULL[version].split("==")[1].split(".")[0]
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers"):
        library = f"lib{name}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True, timeout=300)
    return version, site, folder


@pytest.fixture(scope="session")
def lean(scratch: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch(scratch, tmp_path_factory.mktemp("lean"), *LEAN)


def differences(version: str, real: Members, classes: set[str] | None) -> list[str]:
    """What an emulated class has that the real one has not, or has with other parameters."""
    found = []
    for name, cls in vars(module(version, Library())).items():
        if not isinstance(cls, type) or (classes is not None and name not in classes):
            continue
        if name not in real:
            found.append(f"there is no {name}")
            continue
        # What an Enum brings along is Python's own.
        kept = cls.__members__ if hasattr(cls, "__members__") else vars(cls)
        for member, value in kept.items():
            if (member.startswith("_") and member != "__init__") or inspect.isclass(value):
                continue
            if member not in real[name]:
                found.append(f"{name} has no {member}")
                continue
            overloads = real[name][member]
            if inspect.isfunction(value) and overloads:
                ours = list(inspect.signature(value).parameters)[1:]
                if not any(_fits(ours, overload) for overload in overloads):
                    found.append(f"{name}.{member} takes one of {overloads}, not {ours}")
            elif inspect.isfunction(value) and overloads is None:
                found.append(f"{name}.{member} is no function")
    return found


def _fits(ours: list[str], real: list[str]) -> bool:
    """Whether `ours` are the first of `real`, and the rest of those may be left out."""
    named = [name.rstrip("=") for name in real]
    return ours == named[: len(ours)] and all(name.endswith("=") for name in real[len(ours) :])


def test_every_emulated_member_is_a_real_one(full: tuple[str, Path, Path]) -> None:
    version, site, libraries = full
    done = run([site], DUMP, "tensorrt_bindings", libraries=libraries)
    assert done.returncode == 0, done.stderr
    real = json.loads(done.stdout.splitlines()[-1])
    assert len(real) > 60 and {"Builder", "OnnxParser", "Refitter", "ICudaEngine"} <= set(real)
    assert differences(version, real, None) == []
    assert ("FP16" in real["BuilderFlag"]) == (version != "11.4")
    assert ("num_bindings" in real["ICudaEngine"]) == (version == "8.2")
    # The check sees: an engine of names only has no bindings, and a refitter takes no list.
    del real["Refitter"]["get_missing_weights"]
    real["Runtime"]["deserialize_cuda_engine"] = [["blob"]]
    assert len(differences(version, real, None)) == 2


#: What the backend does before it needs a device: its own logger and monitor, weights from arrays, names of types.
OBJECTS = """
import numpy as np, tensorrt_bindings as trt
from edgekit.errors import BackendError
from edgekit.runtime.backends.tensorrt import build
from edgekit.runtime.backends.tensorrt import execute
from edgekit.runtime.backends.tensorrt.messages import messages
m = messages(trt)
assert m is messages(trt) and isinstance(m.logger, trt.ILogger)
m.logger.log(trt.ILogger.ERROR, "out of memory")
m.logger.log(trt.ILogger.WARNING, "nothing")
assert "TensorRT says: out of memory: the board has too little" in str(m.error("w")), m.error("w")
if hasattr(trt, "IProgressMonitor"):
    monitor = build._monitor(trt, print)
    assert isinstance(monitor, trt.IProgressMonitor) and monitor.step_complete("p", 1) is True
array = np.arange(6, dtype=np.float32)
weights = trt.Weights(array)
assert weights.size == 6
assert {execute.DTYPES[getattr(trt.DataType, n).name] for n in ("FLOAT", "HALF", "INT32")} == {
    "float32", "float16", "int32"}
assert build._network_flags(trt) in (0, 1)
assert build.has_float16(trt) == hasattr(trt.BuilderFlag, "FP16")
try:
    build.build(trt, m, b"", "float32", True, 0, print)
except BackendError as error:
    assert "the engine cannot be built: TensorRT says" in str(error)
    print("refused:", error)
"""


def test_the_backends_objects_are_made_of_the_real_classes(full: tuple[str, Path, Path]) -> None:
    """The empty libraries give no builder, which TensorRT reports as it does on a machine without a driver."""
    _, site, libraries = full
    done = run([site], OBJECTS, libraries=libraries)
    assert done.returncode == 0, done.stderr
    assert "refused: the engine cannot be built" in done.stdout


def test_what_runs_and_refits_is_in_the_lean_bindings(lean: Path) -> None:
    done = run([lean], DUMP, "tensorrt_lean_bindings")
    assert done.returncode == 0, done.stderr
    real = json.loads(done.stdout.splitlines()[-1])
    classes = {
        "ILogger", "Weights", "Runtime", "ICudaEngine", "IExecutionContext", "Refitter", "TensorIOMode", "DataType",
        "IProgressMonitor", "MemoryPoolType", "BuilderFlag",
    }  # fmt: skip
    assert classes <= set(real)
    assert differences("10.3", real, classes) == []


def test_the_real_library_speaks_to_our_logger(lean: Path) -> None:
    code = (
        "import tensorrt_lean_bindings as trt; from edgekit.runtime.backends.tensorrt.messages import messages\n"
        "m = messages(trt); runtime = trt.Runtime(m.logger); print(m.error('no driver'), flush=True)\n"
        # Without a driver this TensorRT crashes even when the runtime is freed.
        "import os; os._exit(0)"
    )
    done = run([lean], code)
    assert done.returncode == 0, done.stderr
    if "CUDA initialization failure" not in done.stdout:
        pytest.skip("this machine has a driver")
    assert "no driver: TensorRT says: createInferRuntime: Error Code 6" in done.stdout
    assert "failure with error: 35" in done.stdout and "look at `dmesg`" in done.stdout


#: `edgekit`, with what is left for it on the command line.
COMMAND = "from edgekit.cli import main; main()"


@pytest.fixture(scope="session")
def runtime_library(scratch: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of NVIDIA's own libcudart."""
    site = fetch(scratch, tmp_path_factory.mktemp("cudart"), *CUDART)
    return site / "nvidia" / "cuda_runtime" / "lib"


def test_a_device_process_without_a_driver(
    lean: Path, runtime_library: Path, small_bundle: Bundle, tmp_path: Path
) -> None:
    """Real TensorRT, real libcudart, no driver: an error with its exit code. Asked anyway, the library would crash."""
    (tmp_path / "tensorrt.py").write_text("from tensorrt_lean_bindings import *\n")
    arguments = ["run", small_bundle.path, "--server", "127.0.0.1:9", "--backend", "tensorrt"]
    probe = run([], "from edgekit.runtime.backends.tensorrt import cudart; print(cudart.load().device_count())",
                libraries=runtime_library)  # fmt: skip
    if probe.returncode == 0:
        pytest.skip("this machine has a driver")
    done = run([tmp_path, lean], COMMAND, *arguments, libraries=runtime_library)
    assert done.returncode == 8, done.stderr
    assert "error: backend 'tensorrt' cannot run here: cudaGetDeviceCount gave" in done.stderr
    assert "cudaErrorInsufficientDriver (35" in done.stderr and "Traceback" not in done.stderr
    if run([], "from edgekit.runtime.backends.tensorrt import cudart; cudart.load()").returncode:
        done = run([tmp_path, lean], COMMAND, *arguments)
        assert done.returncode == 8 and "the CUDA runtime library was not found" in done.stderr, done.stderr


def test_a_device_process_without_the_module(small_bundle: Bundle) -> None:
    done = run([], COMMAND, "run", small_bundle.path, "--server", "127.0.0.1:9", "--backend", "tensorrt")
    if "is not installed" not in done.stderr:
        pytest.skip("this machine has TensorRT")
    assert done.returncode == 8 and "python3-libnvinfer" in done.stderr and "Traceback" not in done.stderr
