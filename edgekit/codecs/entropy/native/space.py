"""Memory that the kernels work in. Each thread keeps small pieces of it for its next call: new ones cost time."""

import ctypes
import threading
from typing import Any, Dict, Tuple

import numpy as np

#: Pieces of so many bytes at most are kept.
KEPT = 1 << 20
_Piece = ctypes.c_char * 1


class _Pieces(threading.local):
    """By name: how many bytes there are, and the memory as a pointer for ctypes."""

    def __init__(self) -> None:
        self.kept: Dict[str, Tuple[int, Any]] = {}


_pieces = _Pieces()


def space(name: str, size: int) -> Any:
    """A pointer to `size` bytes of any content, aligned to 16: this thread's until it asks for `name` again."""
    have, piece = _pieces.kept.get(name, (-1, None))
    if size <= have:
        return piece
    # Payloads differ a little in size: so the next one fits, too.
    size = max(size, 1) if size > KEPT // 2 else 1 << size.bit_length()
    piece = _Piece.from_buffer(np.empty(size, dtype=np.uint8).data)
    if size <= KEPT:
        _pieces.kept[name] = (size, piece)
    return piece
