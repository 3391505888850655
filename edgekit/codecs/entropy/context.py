"""Code indices on the line, entropy coded given the indices around them, with tables that learn from every batch.

An index s of group g, with what is known around it (c_k: the index at neighbour k of `NEIGHBOURS`), has

::

    P(s | c)  ~  P(s) * product over k of (P(s | c_k) / P(s)) ** (w_k / 8)

which no neighbour dilutes: every table has one context. Integers only, so alike on every processor. With a memory one
more neighbour is known: the index that the same image had at this place when it was last trained on.

======  ====  ===========================================================================
offset  size  field (integers little-endian)
======  ====  ===========================================================================
0       1     generation: how often the sender began anew, modulo 256
1       4     version of the tables: batches learned from since
5       2     low 16 bits of the CRC-32 of the tables, int16, begun with a memory's
7       ...   with a memory: the images' numbers, see `edgekit.codecs.entropy.temporal`
...     ...   the indices, wave by wave, see `edgekit.codecs.entropy.rans`
======  ====  ===========================================================================
"""

import struct
import zlib
from collections import OrderedDict
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec, FeatureStream
from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.mixing import mixing
from edgekit.codecs.entropy.native import context as native
from edgekit.codecs.entropy.rans import BITS_PER_LANE
from edgekit.codecs.entropy.reference import context as reference
from edgekit.codecs.entropy.temporal import Memory, Past, read_numbers, write_numbers
from edgekit.errors import PayloadError

#: Versions of the tables before the current one that a stream still decodes: so many batches can be in flight.
HISTORY = 8
_HEAD = struct.Struct("<BIH")


class Tables(NamedTuple):
    """One version of the tables; all ends that learned from the same batches have the same."""

    generation: int
    version: int
    check: int
    #: (neighbours,G,S+1,S) int16, see `edgekit.codecs.entropy.reference.context.logs`.
    logs: np.ndarray


class ContextStream(FeatureStream):
    """One end of a line of codes {"codes": (n,G,h,w) int32 of `bits` bits}.

    With `memory` it remembers the codes of every image that has a number, and sends the numbers too.

    Version 0 are the tables that have seen nothing. A sender may begin anew from them at any time (`reset`); the other
    end follows when it learns from the first batch that was packed since.
    """

    in_flight = HISTORY

    def __init__(self, codec: FeatureCodec, groups: int, bits: int, memory: bool = False) -> None:
        super().__init__(codec)
        self._mixing = mixing(groups, bits, memory)
        self._memory = Memory(HISTORY) if memory else None
        self.remembers = memory
        words = self._mixing.words
        self._counts = np.zeros((len(self._mixing.exponents), groups, words + 1, words), dtype=np.int32)
        self._first = self._now = self._tables(0, 0)
        self._kept = OrderedDict([(0, self._first)])
        self._generation = 0
        self._passed_over = 0

    @property
    def version(self) -> int:
        """Batches learned from since the start, or since the last `reset`."""
        return self._now.version

    @property
    def check(self) -> int:
        """What this end's tables are compared by."""
        return self._now.check

    def reset(self, in_flight: int = 0) -> None:
        """Begins anew with version 0; the next `in_flight` batches to learn from are from before: passed over."""
        self._begin((self._now.generation + 1) % 256)
        self._passed_over = in_flight

    def pack(self, codes: Arrays, images: Optional[np.ndarray] = None) -> bytes:
        symbols, tables = codes["codes"], self._now
        past = self._past(images, symbols.shape, tables.version)
        head = _HEAD.pack(tables.generation, tables.version, tables.check)
        if self._memory is not None:
            head += write_numbers(images)
        return head + pick(native.pack, reference.pack)(self._mixing, tables.logs, symbols, past, BITS_PER_LANE)

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Tuple[Arrays, Optional[np.ndarray]]:
        n, _, h, w = shape
        if len(payload) < _HEAD.size:
            raise PayloadError("{} B of codes, expected at least {}".format(len(payload), _HEAD.size), len(payload))
        generation, version, check = _HEAD.unpack_from(payload)
        tables = self._find(generation, version, check)
        images, start = read_numbers(payload, n, _HEAD.size) if self._memory is not None else (None, _HEAD.size)
        codes = (n, self._mixing.groups, h, w)
        past = self._past(images, codes, version)
        symbols = pick(native.unpack, reference.unpack)(self._mixing, tables.logs, payload, start, codes, past)
        self._generation = generation
        return {"codes": symbols}, images

    def update(self, codes: Arrays, images: Optional[np.ndarray] = None) -> None:
        if self._passed_over:
            self._passed_over -= 1
            return
        if self._generation != self._now.generation:
            self._begin(self._generation)
        symbols = codes["codes"]
        past = self._past(images, symbols.shape, self._now.version)
        pick(native.count, reference.count)(self._mixing, self._counts, symbols, past)
        if self._memory is not None and images is not None:
            self._memory.keep(images, symbols, self._now.version + 1)
        self._now = self._tables(self._now.generation, self._now.version + 1)
        self._kept[self._now.version] = self._now
        if len(self._kept) > HISTORY + 1:
            self._kept.popitem(last=False)

    def state(self) -> Dict[str, Any]:
        # Of the versions before the current one only batches under way have need.
        return {
            "counts": self._counts,
            "generation": self._now.generation,
            "version": self._now.version,
            "sender": self._generation,
            "passed_over": self._passed_over,
            "memory": None if self._memory is None else self._memory.state(),
        }

    def restore(self, state: Dict[str, Any]) -> None:
        self._begin(state["generation"])
        self._counts[:] = state["counts"]
        if self._memory is not None:
            self._memory.restore(state["memory"])
        if state["version"]:
            self._now = self._tables(state["generation"], state["version"])
            self._kept[self._now.version] = self._now
        self._generation, self._passed_over = state["sender"], state["passed_over"]

    def _begin(self, generation: int) -> None:
        self._counts[:] = 0
        if self._memory is not None:
            self._memory = Memory(HISTORY)
        self._first = self._now = self._first._replace(generation=generation)
        self._kept = OrderedDict([(0, self._first)])
        self._generation = generation
        self._passed_over = 0

    def _find(self, generation: int, version: int, check: int) -> Tables:
        """The tables that a payload names; those of version 0 whatever the generation."""
        tables = self._first if version == 0 else self._kept.get(version)
        same = tables is not None and (generation == tables.generation or version == 0)
        if tables is None or not same or check != tables.check:
            raise PayloadError(
                "codes of tables {}.{} (check {:04x}), this end has {}.{} to {}.{}{}: the sender must begin anew with "
                "version 0".format(
                    generation, version, check, self._now.generation, min(self._kept), self._now.generation,
                    self._now.version, " (check {:04x})".format(tables.check) if tables is not None and same else "",
                )
            )  # fmt: skip
        return tables

    def _tables(self, generation: int, version: int) -> Tables:
        logs = pick(native.logs, reference.logs)(self._mixing, self._counts)
        seen = 0 if self._memory is None else self._memory.check
        return Tables(generation, version, zlib.crc32(logs.astype("<i2", copy=False).data, seen) & 0xFFFF, logs)

    def _past(self, images: Optional[np.ndarray], shape: Sequence[int], version: int) -> Optional[Past]:
        """What the memory had of `images` at `version`; None without a memory."""
        return None if self._memory is None else self._memory.recall(images, shape, version)
