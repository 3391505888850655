"""What both ends of a line remember of every training image: the codes that it had when it was last trained on.

An image comes again in every epoch, and the later in a training, the less its codes have changed: then they cost less
to send. Images have numbers, which the sender chooses; they go before the indices of a batch:

::

    1 B   size of a number: 1, 2 or 4, or 0 where images have none
    n *   number of each image, little-endian
"""

import zlib
from collections import deque
from typing import Any, Deque, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgekit.errors import PayloadError

#: Bytes that are remembered at most, images that are new then stay without; and what an image takes beside its codes.
#: Both ends have to have the same.
CAPACITY, OVERHEAD = 1 << 26, 256
_SIZES = (1, 2, 4)
#: Shape (G,h,w) of an image's codes, and they themselves, a byte each.
_Codes = Tuple[Tuple[int, ...], bytes]


def write_numbers(images: Optional[np.ndarray]) -> bytes:
    """Bytes of the numbers (n,) of a batch's images, whole and from 0 below 2**32."""
    if images is None:
        return b"\0"
    size = _size(images)
    return bytes([size]) + images.astype("<u{}".format(size)).tobytes()


def read_numbers(payload: bytes, n: int, start: int) -> Tuple[Optional[np.ndarray], int]:
    """The numbers (n,) int64 from byte `start` of `payload` on, and where they end. PayloadError on other bytes."""
    size = payload[start] if start < len(payload) else -1
    end = start + 1 + n * size
    if size == 0:
        return None, end
    if size in _SIZES and end <= len(payload):
        images = np.frombuffer(payload, "<u{}".format(size), n, start + 1).astype(np.int64)
        if _size(images) == size:
            return images, end
    told = "numbers of {} images, {} B each, from byte {} of {} B: expected the fewest of 1, 2 and 4 B, or 0"
    raise PayloadError(told.format(n, size, start, len(payload)), start)


def _size(images: np.ndarray) -> int:
    largest = max(images.tolist(), default=0)
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


class Past(NamedTuple):
    """What a memory has of a batch's images."""

    #: (n,), 1 where it has codes of the image, else 0.
    known: bytes
    #: (n,G,h,w), a byte each; of images that are not known, zeros.
    codes: bytes


class Memory:
    """Codes by image, as they were at each of the latest `history` versions; version 0 knows none."""

    def __init__(self, history: int) -> None:
        self._codes: Dict[int, _Codes] = {}
        self._bytes = 0
        #: The version that replaced codes, and what it replaced.
        self._replaced: Deque[Tuple[int, Dict[int, Optional[_Codes]]]] = deque(maxlen=history)
        #: CRC-32 of the numbers and codes that were ever kept.
        self.check = 0

    def recall(self, images: Optional[np.ndarray], shape: Sequence[int], version: int) -> Past:
        """What it had of `images` (n,), whose codes have `shape` (n,G,h,w), at `version`."""
        n, groups, h, w = shape
        nothing = (groups, h, w), bytes(groups * h * w)
        if images is None or version == 0:
            return Past(bytes(n), n * nothing[1])
        before: Dict[int, Optional[_Codes]] = {}
        for since, replaced in reversed(self._replaced):
            if since > version:
                before.update(replaced)
        found = [before[image] if image in before else self._codes.get(image) for image in images.tolist()]
        # An image that comes in another size is one that is not known.
        fitting = [codes if codes is not None and codes[0] == nothing[0] else nothing for codes in found]
        return Past(bytes([codes is not nothing for codes in fitting]), b"".join([codes for _, codes in fitting]))

    def state(self) -> Dict[str, Any]:
        """What is remembered of all images; what was replaced is left out, only batches under way have need of it."""
        images = sorted(self._codes)
        content = b"".join(self._codes[image][1] for image in images)
        return {
            "images": np.array(images, dtype=np.int64),
            "shapes": np.array([self._codes[image][0] for image in images], dtype=np.int64).reshape(-1, 3),
            "codes": np.frombuffer(content, np.uint8),
            "check": self.check,
        }

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`, as nothing that was there before."""
        content, at = state["codes"].tobytes(), 0
        for image, shape in zip(state["images"].tolist(), map(tuple, state["shapes"].tolist())):
            size = shape[0] * shape[1] * shape[2]
            self._codes[image] = shape, content[at : at + size]
            self._bytes += size + OVERHEAD
            at += size
        self.check = state["check"]

    def keep(self, images: np.ndarray, codes: np.ndarray, version: int) -> None:
        """Remembers `codes` (n,G,h,w), 0 to 255, of `images` (n,) from `version` on."""
        replaced: Dict[int, Optional[_Codes]] = {}
        content, shape = codes.astype(np.uint8).tobytes(), codes.shape[1:]
        size = len(content) // max(len(images), 1)
        for i, image in enumerate(images.tolist()):
            known = self._codes.get(image)
            grows = size + OVERHEAD if known is None else size - len(known[1])
            if self._bytes + grows > CAPACITY:
                continue
            each = content[i * size : (i + 1) * size]
            replaced.setdefault(image, known)
            self._codes[image] = shape, each
            self._bytes += grows
            self.check = zlib.crc32(each, zlib.crc32(b"%d " % image, self.check))
        self._replaced.append((version, replaced))
