"""Damaged payloads through the compiled kernels, under the address and undefined-behaviour sanitizers.

``python bench/fuzz.py [--seconds 60] [--seed 0]`` compiles edgekit/codecs/entropy/native by the system's C compiler
with both sanitizers, and starts a second Python on that library. There codecs pack random arrays of random shapes; the
payloads are damaged, and the compiled kernels and those of numpy have to say the same of each: the same arrays, or the
same PayloadError. It prints how many payloads there were, by codec, and how many of them were refused. A sanitizer's
finding, or another error, ends it with what was found and an exit code that is not 0.
"""

import ctypes
import glob
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from arguments import Arguments

from edgekit.codecs.entropy import kernels, rows
from edgekit.codecs.entropy.native import build, library, space
from edgekit.codecs.registry import feature_codec, gradient_codec, update_codec
from edgekit.errors import PayloadError

FLAGS = ("-std=c99", "-O1", "-g", "-fPIC", "-shared", "-ffp-contract=off", "-fno-omit-frame-pointer")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
#: Names the instrumented library to the second Python.
LIBRARY = "EDGEKIT_FUZZED"
#: Settings of those codecs that have any; bits are drawn.
FEATURES: tuple[dict[str, Any], ...] = ({}, {"coding": "context"}, {"coding": "temporal"})
GRADIENTS: tuple[tuple[str, dict[str, Any]], ...] = (("sparse", {}), ("dct", {"zone": 1}), ("stochastic", {}))
UPDATES: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("quantised", {"step": step}) for step in (0.1, 0.5, 1)), ("dgc", {"keep": 0.1}), ("terngrad", {}), ("stc", {}),
    ("dhqc", {"keep": 0.2, "location": "mean"}), ("fsfl", {"step": 0.1, "fine": 0.01, "delta": 0.5}),
)  # fmt: skip

#: What decodes one payload, and a name for it.
Case = tuple[str, bytes, Callable[[bytes], Any]]


def sgq(rng: np.random.Generator) -> Case:
    """Indices, packed or coded by tables that have learned from some batches."""
    groups, bits, settings = int(rng.integers(1, 6)), int(rng.integers(1, 9)), FEATURES[rng.integers(len(FEATURES))]
    n, h, w = (int(size) for size in rng.integers(1, 9, 3))
    end = feature_codec("sgq", {"groups": groups, "bits": bits, **settings}).stream()

    def batch() -> tuple[dict[str, np.ndarray], np.ndarray]:
        spread = rng.integers(1, 2**bits + 1)
        codes = rng.integers(0, spread, (n, groups, h, w), dtype=np.int32) * (rng.random((n, groups, h, w)) < 0.5)
        return {"codes": codes.astype(np.int32)}, rng.integers(0, 2 * n, n)

    for _ in range(rng.integers(0, 3)):
        end.update(*batch())
    return f"sgq {settings}", end.pack(*batch()), lambda payload: end.unpack(payload, (n, 8 * groups, h, w))


def gradient(rng: np.random.Generator) -> Case:
    name, settings = GRADIENTS[rng.integers(len(GRADIENTS))]
    shape = tuple(int(size) for size in rng.integers(1, 9, 4))
    codec, values = gradient_codec(name, settings), rng.laplace(size=shape).astype(np.float32)
    payload = codec.pack(values * (rng.random(shape) < rng.random()).astype(np.float32), None, rng)
    return f"{name} {settings}", payload, lambda payload: codec.unpack(payload, shape, None)


def update(rng: np.random.Generator) -> Case:
    name, settings = UPDATES[rng.integers(len(UPDATES))]
    shapes = {str(i): tuple(int(size) for size in rng.integers(0, 30, 2)) for i in range(rng.integers(1, 5))}
    codec = update_codec(name, settings)
    payload = codec.pack({key: rng.laplace(size=shape).astype(np.float32) for key, shape in shapes.items()}, rng)
    return name, payload, lambda payload: codec.unpack(payload, shapes)


def filters(rng: np.random.Generator) -> Case:
    """Levels of several arrays, from nearly all 0 to long ones."""
    lines, widths = rng.integers(1, 9, (2, rng.integers(1, 5)))
    sizes = lines * widths
    levels = rng.laplace(scale=10.0 ** rng.uniform(-1, 7), size=sizes.sum()) * (rng.random(sizes.sum()) < rng.random())
    payload = rows.encode(np.rint(levels).astype(np.int64), sizes, lines)
    return "rows", payload, lambda payload: rows.decode(payload, 0, sizes, lines)


def codebook(rng: np.random.Generator) -> Case:
    """How far codewords moved, or with a tolerance of 0 all of them; with it, what the receiver has so far."""
    groups, bits = int(rng.integers(1, 6)), int(rng.integers(1, 9))
    codec = feature_codec("sgq", {"groups": groups, "bits": bits})
    channels = groups * int(rng.integers(1, 9))
    old, moves = rng.laplace(size=(2, 2**bits, channels)).astype(np.float32)
    sent = {"codebook": old, "order": rng.permutation(channels)}
    new = old + moves * (rng.random(old.shape) < rng.random()).astype(np.float32)
    payload = codec.diff(sent, dict(sent, codebook=new), float(rng.choice([0, 0.02, 0.1, 1])))
    return "codebook", payload, lambda payload: codec.patch(sent, payload)


def damaged(payload: bytes, rng: np.random.Generator) -> bytes:
    """`payload` with some bytes or bits changed, cut, longer, or other bytes altogether."""
    changed = np.frombuffer(payload, dtype=np.uint8).copy()
    kind = rng.integers(8)
    if kind == 0:
        changed = rng.integers(0, 256, rng.integers(0, 2 * len(changed) + 2)).astype(np.uint8)
    for _ in range(rng.integers(1, 4) if len(changed) and kind > 1 else 0):
        # Heads are at the start: half of the changes are there.
        at = rng.integers(len(changed)) if rng.random() < 0.5 else rng.integers(min(len(changed), 24))
        changed[at] = rng.choice([0, 255, changed[at] ^ (1 << rng.integers(8)), rng.integers(256)])
    end = rng.integers(len(changed) + 1) if kind in (1, 7) else len(changed)
    return changed[:end].tobytes() + (rng.bytes(int(rng.integers(1, 9))) if kind == 6 else b"")


#: Indices twice as often: they have most kernels.
CASES = (sgq, sgq, gradient, update, filters, codebook)


def outcome(decode: Callable[[bytes], Any], payload: bytes) -> tuple[Any, bool]:
    """What `decode` gives, as bytes to compare, or says; and whether it refused."""
    try:
        return flat(decode(payload)), False
    except PayloadError as error:
        return (str(error), error.offset), True


def flat(result: Any) -> Any:
    if isinstance(result, dict):
        return [(name, flat(each)) for name, each in result.items()]
    if isinstance(result, tuple):
        return [flat(each) for each in result]
    return None if result is None else (str(result.dtype), result.shape, result.tobytes())


def feed(path: str, seconds: float, seed: int) -> None:
    """Damages payloads for so many seconds, with the library at `path`; prints the counts as JSON."""
    library._opened = lambda name: ctypes.CDLL(path)
    # Every piece of memory for itself, and no longer than asked for.
    space.KEPT = 0
    rng, seen, refused = np.random.default_rng(seed), Counter[str](), Counter[str]()
    end = time.monotonic() + seconds
    for case, make in enumerate(itertools.cycle(CASES)):
        if case >= len(CASES) and time.monotonic() >= end:
            break
        made = rng.bit_generator.state
        with kernels.using("native"):
            name, payload, decode = make(rng)
        for number in range(20):
            given = payload if number == 0 else damaged(payload, rng)
            said = {}
            for coder in kernels.NAMES:
                with kernels.using(coder):
                    said[coder], wrong = outcome(decode, given)
            if said["native"] != said["numpy"]:
                raise AssertionError(f"{name}: {given.hex()} differs, made from {made}: {said}")
            seen[name] += 1
            refused[name] += wrong
    told = {name: {"payloads": seen[name], "refused": refused[name]} for name in sorted(seen)}
    sys.stdout.write(
        json.dumps({"payloads": seen.total(), "refused": refused.total(), "codecs": told}, indent=1) + "\n"
    )


def main() -> int:
    arguments = Arguments(__doc__)
    arguments.add("of damaging payloads", seconds=60.0)
    arguments.add(seed=0)
    arguments.add("the C compiler, gcc or clang", compiler="cc")
    options = arguments.parse_args()
    if LIBRARY in os.environ:
        feed(os.environ[LIBRARY], options.seconds, options.seed)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "libfuzzed.so")
        sources = sorted(glob.glob(os.path.join(build.HERE, "*.c")))
        subprocess.run([options.compiler, *FLAGS, *SANITIZERS, *sources, "-o", path], check=True)
        # Python itself is not instrumented: the sanitizer has to be there before it, and every array and every payload
        # has to be a piece of memory of its own.
        told = [options.compiler, "-print-file-name=libasan.so"]
        asan = subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()
        environment = {
            **os.environ, LIBRARY: path, "LD_PRELOAD": asan, "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1",
            "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }  # fmt: skip
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
