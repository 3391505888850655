"""An emulator of pyACL for tests: its functions, shapes of answers and codes, with strict accounting; NOT Huawei's.

Models are those of `atc_emulator`, and compute in float32 through ONNX Runtime. What real CANN leaves undefined is an
error here: a handle that was freed or never given is 200005, memory of the wrong size 100000, copying from Python
memory that nobody holds any more 200005. Freed memory is overwritten. `left` says what was not freed.
"""

import json
import os
import sys
from typing import Any

import numpy as np

from tests.device.ascend.emulated_calls import Code
from tests.device.ascend.emulated_models import Models

NPY_TYPES = {2: np.uint8, 5: np.int32, 7: np.int64, 11: np.float32, 23: np.float16}


class Emulator(Models):
    """acl, acl.rt and acl.util of one process."""

    def acl_init(self) -> None:
        """code, any time"""
        if self.state != "new":
            raise Code(100002)
        self.state = "initialised"

    def acl_finalize(self) -> None:
        """code, any time, free"""
        if self.state != "initialised":
            raise Code(100037 if self.state == "finalized" else 100001)
        self.state = "finalized"
        if "EMULATED_ACL_RECORD" in os.environ:
            with open(os.environ["EMULATED_ACL_RECORD"], "a", encoding="utf-8") as record:
                record.write(json.dumps({"left": self.left(), "codes": self.codes, "calls": self.calls}) + "\n")
        if self.left():
            raise Code(500001)

    def acl_get_soc_name(self) -> str:
        """value"""
        return self.chip

    def acl_get_recent_err_msg(self) -> str | None:
        """value, any time"""
        return f"emulated words about {self.codes[-1]}\n" if self.codes else None

    def acl_rt_set_device(self, device: int) -> None:
        """code"""
        if device != 0:
            raise Code(107001)
        self.devices += 1

    def acl_rt_reset_device(self, device: int) -> None:
        """code, free"""
        if device != 0 or not self.devices:
            raise Code(107001)
        self.devices -= 1

    def acl_rt_create_context(self, device: int) -> int:
        """pair"""
        if device != 0 or not self.devices:
            raise Code(107001)
        self._thread.context = self._new("context", device)
        return int(self._thread.context)

    def acl_rt_set_context(self, context: int) -> None:
        """code"""
        self._get("context", context)
        self._thread.context = context

    def acl_rt_destroy_context(self, context: int) -> None:
        """code, free"""
        if set(self.left()) - {"context", "device"}:
            raise Code(200004)
        self._free("context", context)

    def acl_rt_get_run_mode(self) -> int:
        """pair, context"""
        return int(self.on_host)

    def acl_rt_malloc(self, size: int, policy: int) -> int:
        """pair, context"""
        if size < 1 or policy not in (0, 1, 2):
            raise Code(100000)
        return self._new("device memory", bytearray(b"\xaa" * size))

    def acl_rt_malloc_host(self, size: int) -> int:
        """pair, context"""
        if size < 1:
            raise Code(100000)
        return self._new("host memory", bytearray(b"\xaa" * size))

    def acl_rt_free(self, pointer: int) -> None:
        """code, context, free"""
        memory = self._get("device memory", pointer)
        memory[:] = b"\xaa" * len(memory)
        self._free("device memory", pointer)

    def acl_rt_free_host(self, pointer: int) -> None:
        """code, context, free"""
        memory = self._get("host memory", pointer)
        memory[:] = b"\xaa" * len(memory)
        self._free("host memory", pointer)

    def acl_rt_memcpy(self, to: int, room: int, source: int, count: int, kind: int) -> None:
        """code, context"""
        content = self._content(source)
        on_device = (source in self.live["device memory"], to in self.live["device memory"])
        target = self._get("device memory" if on_device[1] else "host memory", to)
        if self.on_host and kind != {(False, True): 1, (True, False): 2, (True, True): 3}.get(on_device, 0):
            raise Code(100000)
        if not self.on_host and kind != 3:
            raise Code(100000)
        if not 0 < count <= room or room != len(target) or count > len(content):
            raise Code(100000)
        target[:count] = content[:count]

    def _content(self, pointer: int) -> Any:
        for kind in ("device memory", "host memory"):
            if pointer in self.live[kind]:
                return self.live[kind][pointer]
        held = self.pinned.pop(pointer, None)
        # References: `held`, the argument of getrefcount, and whoever made the pointer.
        if held is None or sys.getrefcount(held) < 3:
            raise Code(200005)
        return held if isinstance(held, bytes) else held.tobytes()

    def acl_util_bytes_to_ptr(self, content: bytes) -> int:
        """value, any time"""
        return self._pin(content) if isinstance(content, bytes) else 0

    def acl_util_numpy_to_ptr(self, array: np.ndarray) -> int:
        """value, any time"""
        return self._pin(array) if array.flags.c_contiguous else 0

    def _pin(self, content: Any) -> int:
        pointer = next(self._handles)
        self.pinned[pointer] = content
        return pointer

    def acl_util_ptr_to_bytes(self, pointer: int, size: int) -> bytes | None:
        """value, any time"""
        memory = self._get("host memory", pointer)
        return bytes(memory) if size == len(memory) else None

    def acl_util_ptr_to_numpy(self, pointer: int, shape: tuple[int, ...], npy_type: int) -> np.ndarray:
        """value, any time"""
        return np.frombuffer(self._get("host memory", pointer), NPY_TYPES[npy_type]).reshape(shape)

    def acl_create_data_buffer(self, pointer: int, size: int) -> int:
        """value, context"""
        if size != len(self._get("device memory", pointer)):
            raise Code(100000)
        return self._new("data buffer", (pointer, size))

    def acl_destroy_data_buffer(self, buffer: int) -> None:
        """code, context, free"""
        self._free("data buffer", buffer)
