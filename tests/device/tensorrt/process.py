"""``python -m tests.device.tensorrt.process VERSION RECORD ARGUMENTS...``: a device process on an emulated board.

It is ``python -m edgekit.runtime ARGUMENTS...`` with emulators in the places of TensorRT and libcudart, or without them
where VERSION is "none". RECORD becomes a JSON file: counts of builds, refits and contexts, bytes left on the device,
and what was misused. ``RECORD.npz`` has the codes of each image that was encoded, and the class that each test gave.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.line.labels import unpack_labels
from edgekit.runtime.__main__ import main
from edgekit.runtime.backends.tensorrt import cudart
from edgekit.runtime.learn import FrontHalf
from tests.device.tensorrt.cudart_emulator import Library
from tests.device.tensorrt.emulator import module


def watched(arguments: list[str], path: str) -> int:
    """The exit code of the device process; `path` gets codes (n,G,h,w) and classes (n,), in the order of images."""
    codes: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    encode = FrontHalf.encode

    def encoded(front: FrontHalf, image: np.ndarray) -> Arrays:
        found = encode(front, image)
        codes.append(found["codes"].copy())
        return found

    def answered(payload: bytes, images: int, n_classes: int) -> np.ndarray:
        predicted = unpack_labels(payload, images, n_classes)
        classes.append(predicted)
        return predicted

    with patch.object(FrontHalf, "encode", encoded), patch("edgekit.runtime.evaluation.unpack_labels", answered):
        code = main(arguments)
    np.savez(path, codes=np.concatenate(codes), classes=np.concatenate([np.zeros(0, np.int64), *classes]))
    return code


if __name__ == "__main__":
    version, record, *rest = sys.argv[1:]
    told: dict[str, Any] = {}
    if version == "none":
        exit_code = watched(rest, record + ".npz")
    else:
        library = Library()
        trt = sys.modules["tensorrt"] = module(version, library)
        cudart.load = lambda: cudart.Cudart(library)
        exit_code = watched(rest, record + ".npz")
        left = sum(map(len, library.memory.values())) + len(library.streams)
        told = {**trt.count, "left": left, "misused": list(map(repr, library.crashed)), "version": trt.__version__}
    Path(record).write_text(json.dumps(told))
    sys.exit(exit_code)
