"""DeepCABAC, nncodec's coder, on integer levels: the process that bench/update_coder.py starts.

``python bench/update_worker.py FILE``: FILE is an .npz of arrays CASE/NAME of int32. For every line {"case": CASE} of
standard input it codes the arrays of the case once, checks that they come back, and tells the payload's "bytes" and the
milliseconds of CPU time, "encode_ms" and "decode_ms". Lines are JSON objects, both ways. The interpreter needs numpy
and nncodec's compiled module alone.

The coder is set as `nncodec.nn.encode` sets it: unary up to 11, its estimators chosen for each array, all-zero rows
skipped. One payload has all arrays, and what Python prepares for the coder is not timed: both favour it.
"""

import importlib
import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from arguments import Arguments

#: Unary length, and that estimators are chosen for each array.
UNARY, CHOSEN = 11, 1
#: No dependent quantisation, no other scan order; profile 1, no parent node.
PLAIN = (0, 0, 1, 0)


class DeepCabac:
    def __init__(self) -> None:
        self._module = importlib.import_module("nncodec.extensions.deepCABAC")
        #: No history of earlier updates, no codebook.
        self._alone = (self._module.HdspMode.AlwaysOff, np.zeros(2, dtype=np.int8), 0, 0)

    def encode(self, arrays: list[np.ndarray], zero: list[np.ndarray]) -> np.ndarray:
        """(bytes,) uint8; `zero` is `all_zero` of each array."""
        encoder = self._module.Encoder()
        for array, rows in zip(arrays, zero, strict=True):
            encoder.initCtxModels(UNARY, CHOSEN)
            encoder.encodeLayer(array, *PLAIN, 1, rows, *self._alone)
        payload: np.ndarray = encoder.finish()
        return payload

    def decode(self, payload: np.ndarray, into: list[np.ndarray]) -> None:
        """Fills the arrays, which are zeros, with what was coded."""
        decoder = self._module.Decoder()
        decoder.setStream(payload)
        for array in into:
            decoder.initCtxModels(UNARY)
            decoder.decodeLayer(array, *PLAIN, *self._alone)
        decoder.finish()


def all_zero(array: np.ndarray) -> np.ndarray:
    """(rows,) int32: 1 for every row of zeros of a weight, 0 for the others and in arrays of one dimension."""
    active = np.asarray(array.reshape(len(array), -1).any(axis=1))
    return np.asarray(~active & (array.ndim > 1), dtype=np.int32)


def turn(coder: DeepCabac, arrays: list[np.ndarray], zero: list[np.ndarray]) -> dict[str, Any]:
    """Codes once."""
    start = time.process_time()
    payload = coder.encode(arrays, zero)
    middle = time.process_time()
    into = [np.zeros(array.shape, dtype=np.int32) for array in arrays]
    ready = time.process_time()
    coder.decode(payload, into)
    end = time.process_time()
    for array, again in zip(arrays, into, strict=True):
        np.testing.assert_array_equal(again, array)
    return {"bytes": len(payload), "encode_ms": 1e3 * (middle - start), "decode_ms": 1e3 * (end - ready)}


def main() -> None:
    options = Arguments(__doc__, "file").parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    coder = DeepCabac()
    cases: dict[str, list[np.ndarray]] = {}
    with np.load(options.file) as saved:
        for key in saved.files:
            cases.setdefault(key.split("/")[0], []).append(saved[key])
    zero = {case: [all_zero(array) for array in arrays] for case, arrays in cases.items()}
    answers.write(json.dumps({"nncodec": version("nncodec")}) + "\n")
    for line in sys.stdin:
        case = json.loads(line)["case"]
        answers.write(json.dumps(turn(coder, cases[case], zero[case])) + "\n")


if __name__ == "__main__":
    main()
