"""The .om of an ONNX file for one chip, made by ATC, CANN's compiler: on the board, or on a host with the same CANN.

::

    python -m edgekit.runtime.backends.ascend.atc BUNDLE      compile the deployed graph, print the .om's path
"""

import argparse
import glob
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from edgekit.bundle import open_bundle
from edgekit.errors import BackendError
from edgekit.runtime import cache, onnxfile
from edgekit.runtime.backends.ascend import cann
from edgekit.runtime.backends.ascend.atc_codes import causes
from edgekit.runtime.program import exit_code
from edgekit.tensors import TensorSpec

#: Precision of a profile -> --precision_mode, by names that every CANN from 5.0 on has.
PRECISIONS = {"float16": "force_fp16", "float32": "must_keep_origin_dtype"}
LEVELS = ("debug", "info", "warning", "error", "null")
#: Seconds between two lines of progress: a compilation takes minutes.
PROGRESS_S = 15.0


class Job(NamedTuple):
    """Everything that decides what the .om is, besides the ONNX file and the version of CANN."""

    soc_version: str
    #: "float16" or "float32"
    precision: str
    #: Every input of the graph, with the shape to compile for.
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]

    def options(self) -> List[str]:
        """The options of `atc` for this job; BackendError when ATC cannot take it."""
        for spec in self.inputs:
            if any(length < 1 for length in spec.shape) or any(mark in spec.name for mark in ":;"):
                raise BackendError(
                    "input '{}' of shape {} cannot be compiled, ATC takes positive lengths alone and no : or ; in a "
                    "name: export the bundle with --device of this board, or --static-batch".format(
                        spec.name, list(spec.shape)
                    )
                )
        if self.precision not in PRECISIONS:
            raise BackendError("precision '{}', expected one of {}".format(self.precision, sorted(PRECISIONS)))
        shapes = ";".join("{}:{}".format(spec.name, ",".join(map(str, spec.shape))) for spec in self.inputs)
        options = [
            "--framework=5",
            "--soc_version={}".format(self.soc_version),
            "--input_format={}".format("NCHW" if len(self.inputs[0].shape) == 4 else "ND"),
            "--input_shape={}".format(shapes),
            "--precision_mode={}".format(PRECISIONS[self.precision]),
        ]
        # Without it outputs keep the types of their last operators. Up to CANN 8.5 the option knows no INT32.
        if all(spec.dtype == "float32" for spec in self.outputs):
            options.append("--output_type=FP32")
        return options

    def name(self, model: bytes, learned: bool = False) -> str:
        """The .om's name in the cache: the hash of the exported graph `model`, the input shape, "-learned" or not.

        All .om of learned weights share a name, so each replaces the last; that of the exported weights stays.
        """
        shape = "x".join(map(str, self.inputs[0].shape))
        return "ascend-{}-{}{}".format(hashlib.sha256(model).hexdigest()[:16], shape, "-learned" if learned else "")


def job(
    device: Dict[str, Any], chip: Optional[str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Job:
    """The job for a board: `device` is its profile ({} for none), `chip` its driver's name (None on another machine).

    BackendError when profile and driver name different chips, or neither names one.
    """
    planned = device.get("versions", {}).get("soc_version")
    if planned and chip and planned != chip:
        raise BackendError(
            "the bundle is for {} ({}), this board's chip is {}: export it with a profile whose soc_version is {} "
            "(docs/devices.md, A board of your own)".format(planned, device.get("name"), chip, chip)
        )
    if not planned and not chip:
        raise BackendError(
            "nothing says which chip to compile for: export the bundle with --device atlas-200-dk or atlas-200i-dk-a2"
        )
    precision = device["target"]["precision"] if planned else "float16"
    return Job(str(planned or chip), precision, tuple(inputs), tuple(outputs))


def command(atc: str, model: str, output: str, options: Sequence[str], log: str = "error") -> List[str]:
    """The command that compiles `model` to `output` + ".om"."""
    return [atc, "--mode=0", "--model=" + model, "--output=" + output, *options, "--log=" + log]


def obtain(model: bytes, name: str, job: Job, say: Callable[[str], None], log: str = "error") -> bytes:
    """The .om of `model`: the cached `name` if graph, CANN, chip and options are the same, else a new one."""
    key = {
        "model": hashlib.sha256(model).hexdigest(),
        "cann": cann.version(),
        "soc_version": job.soc_version,
        "options": " ".join(job.options()),
    }
    kept = cache.load(name, key, say)
    if kept is not None:
        return kept
    compiled = compile_model(model, job, log_of(name), say, log)
    cache.store(name, key, compiled, say)
    return compiled


def log_of(name: str) -> str:
    """The file that keeps what ATC printed, beside the .om."""
    return os.path.join(cache.folder(), name + ".log")


def compile_model(model: bytes, job: Job, printed: str, say: Callable[[str], None], log: str = "error") -> bytes:
    """The .om of `model`, an ONNX file. File `printed` gets what ATC prints, `say` a line of progress now and then.

    BackendError with ATC's reasons in plain words.
    """
    options = job.options()
    atc = cann.find_atc()
    if atc is None:
        raise BackendError(
            "atc is not here (looked on PATH, in ASCEND_TOOLKIT_HOME and in {}): {}; or compile on a host with the "
            "same CANN, by `python -m edgekit.runtime.backends.ascend.atc BUNDLE`, and copy the file "
            "(docs/atlas.md)".format(", ".join(cann.PLACES), cann.SOURCE)
        )
    try:
        os.makedirs(os.path.dirname(printed), exist_ok=True)
        # A folder of its own: atc leaves kernel_meta and fusion_result.json where it runs.
        with tempfile.TemporaryDirectory(prefix="edgekit-atc-") as work:
            source, target = os.path.join(work, "model.onnx"), os.path.join(work, "model")
            with open(source, "wb") as file:
                file.write(model)
            arguments = command(atc, source, target, options, log)
            output, code = _run(arguments, work, printed, say)
            # Newer versions may add the system to the name: model_linux_aarch64.om.
            made = sorted(glob.glob(target + "*.om"))
            if code or len(made) != 1:
                told = "atc ended with {} and {} .om: {}. What it printed is in {}; the command was {}"
                raise BackendError(told.format(code, len(made), reasons(output, code), printed, " ".join(arguments)))
            with open(made[0], "rb") as om:
                return om.read()
    except OSError as error:
        advice = "free space, or set TMPDIR and EDGEKIT_CACHE to folders that can be written"
        raise BackendError("compiling by {}: {}: {}".format(atc, error, advice)) from error


def _run(arguments: List[str], work: str, printed: str, say: Callable[[str], None]) -> Tuple[str, int]:
    """What the command printed, and its exit status."""
    start = time.monotonic()
    say("compiling, which takes minutes: {}".format(" ".join(arguments)))
    with open(printed, "wb") as log:
        process = subprocess.Popen(arguments, cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    code = process.wait(PROGRESS_S)
                    break
                except subprocess.TimeoutExpired:
                    say("atc has been compiling for {:.0f} s".format(time.monotonic() - start))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    say("atc took {:.0f} s; what it printed is in {}".format(time.monotonic() - start, printed))
    with open(printed, encoding="utf-8", errors="replace") as file:
        return file.read(), code


def reasons(output: str, code: int) -> str:
    """Why ATC failed and what to do, from what it printed and its exit status."""
    found = causes(output)
    if found:
        return "; ".join("{}: {} [{}]: {}".format(c.code, c.meaning, c.line, c.advice) for c in found)
    if code in (-9, 137):
        return (
            "it was killed, as Linux does when memory runs out: export TE_PARALLEL_COMPILER=1 and "
            "MAX_COMPILE_CORE_NUMBER=1, add swap, or compile on a host with the same CANN (docs/atlas.md)"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return "it gave no code, and its last line is [{}]".format(lines[-1] if lines else "")


def main(arguments: Optional[List[str]] = None) -> int:
    """Compiles the deployed graph of a bundle into the cache; returns the exit code (see `edgekit.errors`)."""
    p = argparse.ArgumentParser(
        prog="python -m edgekit.runtime.backends.ascend.atc",
        description="Compile the deployed graph of BUNDLE for its Ascend board, on a machine with the board's CANN.",
    )
    p.add_argument("bundle", metavar="BUNDLE", help="folder written by `edgekit export --device atlas-...`")
    p.add_argument("--log", default="error", choices=LEVELS, help="what ATC logs (default error)")
    p.add_argument("--dry-run", action="store_true", help="print the command, and compile nothing")
    options = p.parse_args(arguments)
    return exit_code(lambda: _compile_bundle(options))


def _compile_bundle(options: argparse.Namespace) -> None:
    bundle = open_bundle(options.bundle)
    graph = bundle.graphs["front"]
    model = bundle.read(graph.file)
    order = {name: i for i, name in enumerate(onnxfile.load(model).outputs)}
    outputs = sorted(graph.outputs, key=lambda spec: order.get(spec.name, len(order)))
    todo = job(bundle.device, None, graph.inputs + graph.held, outputs)
    if options.dry_run:
        file = os.path.join(bundle.path, graph.file)
        line = command(cann.find_atc() or "atc", file, "front", todo.options(), options.log)
        sys.stdout.write(" ".join(line) + "\n")
        return
    obtain(model, todo.name(model), todo, _show, options.log)
    sys.stdout.write(cache.path(todo.name(model)) + "\n")


def _show(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
