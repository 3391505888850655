"""`import acl` for processes that tests start, with this folder on PYTHONPATH: the emulator, NOT Huawei's pyACL."""

import os
import sys

from tests.device.ascend.emulator import Emulator

if __name__ == "acl":
    sys.modules["acl"] = Emulator(
        bytes_api=os.environ.get("EMULATED_ACL_API") != "numpy",
        chip=os.environ.get("EMULATED_ACL_CHIP", "Ascend310"),
    ).module()
