"""``python -m tests.device.tensorrt.process VERSION RECORD ARGUMENTS...``: a device process on an emulated board.

It is ``python -m edgekit.runtime ARGUMENTS...`` with emulators in the places of TensorRT and libcudart. RECORD becomes
a JSON file: counts of builds, refits and contexts, bytes left on the device, and what was misused.
"""

import json
import sys
from pathlib import Path

from edgekit.runtime.__main__ import main
from edgekit.runtime.backends.tensorrt import cudart
from tests.device.tensorrt.cudart_emulator import Library
from tests.device.tensorrt.emulator import module

if __name__ == "__main__":
    version, record, *arguments = sys.argv[1:]
    library = Library()
    trt = sys.modules["tensorrt"] = module(version, library)
    cudart.load = lambda: cudart.Cudart(library)
    code = main(arguments)
    left = sum(map(len, library.memory.values())) + len(library.streams)
    told = {**trt.count, "left": left, "misused": list(map(repr, library.crashed)), "version": trt.__version__}
    Path(record).write_text(json.dumps(told))
    sys.exit(code)
