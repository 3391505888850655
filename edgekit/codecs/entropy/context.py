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
from functools import lru_cache
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec, FeatureStream
from edgekit.codecs.entropy import rans
from edgekit.codecs.entropy.temporal import Memory, read_numbers, write_numbers
from edgekit.errors import PayloadError

#: (groups before, rows before, columns before, weight in eighths): left, upper, upper right, and in the group before at
#: the same place, to the right and below, and two groups before. Weights fitted on features of VGG11-thin, CIFAR-10.
NEIGHBOURS = (
    (0, 0, 1, 6),
    (0, 1, 0, 4),
    (0, 1, -1, 3),
    (1, 0, 0, 3),
    (1, 0, -1, 3),
    (1, -1, 0, 4),
    (2, 0, 0, 3),
)
#: The weight, in eighths, of the index that a memory has: fitted likewise, on the epochs 2 and 6 of a training.
PAST = 6
#: Versions of the tables before the current one that a stream still decodes: so many batches can be in flight.
HISTORY = 8
#: All counts of a group are halved when it has seen so many indices: it forgets.
LIMIT = 1 << 17
#: A context starts as if it had seen one index for each word, spread as in all contexts; in these parts of an index.
_SCALE = 16
#: Words times indices that are worked on at once, as many as a cache holds.
_BLOCK = 1 << 17
_HEAD = struct.Struct("<BIH")
_LOG2 = rans.log2(np.arange(1, (1 << 16) + 1)).astype(np.int16)


class Tables(NamedTuple):
    """One version of the tables; all ends that learned from the same batches have the same."""

    generation: int
    version: int
    check: int
    #: (neighbours*G*(S+1), S) int16, 256ths of a bit: row ``(k*G + g) * (S+1) + c`` for index c at neighbour k, or S
    #: where there is none.
    logs: np.ndarray


class Scan(NamedTuple):
    """In which order the indices of a batch are coded: in waves, whose neighbours are all in waves before."""

    #: Indices of each wave.
    runs: List[int]
    #: (m,) int64, which of the batch's indices (n,G,h,w), flat, is coded when.
    order: np.ndarray
    #: (m,) int64, where it lies in the volume: the batch with a border, flat.
    places: np.ndarray
    #: (m,) int64, its group.
    groups: np.ndarray
    #: Shape of the volume.
    volume: Tuple[int, ...]
    #: (neighbours, m) int64, where each one's neighbours lie.
    around: np.ndarray


@lru_cache(maxsize=4)
def scan(n: int, groups: int, h: int, w: int) -> Scan:
    """The order for codes of shape (n,groups,h,w)."""
    volume = (n, groups + 2, h + 2, w + 2)
    image, group, row, column = (axis.reshape(-1) for axis in np.indices((n, groups, h, w)))
    wave = 3 * group + 2 * row + column
    order = np.argsort(wave, kind="stable")
    places = np.ravel_multi_index((image, group + 2, row + 1, column + 1), volume)[order]
    offsets = np.array([(g * (h + 2) + y) * (w + 2) + x for g, y, x, _ in NEIGHBOURS])
    runs = [int(size) for size in np.bincount(wave) if size]
    return Scan(runs, order, places, group[order], volume, places - offsets[:, None])


class ContextStream(FeatureStream):
    """One end of a line of codes {"codes": (n,G,h,w) int32 of `bits` bits}.

    With `memory` it remembers the codes of every image that has a number, and sends the numbers too.

    Version 0 are the tables that have seen nothing. A sender may begin anew from them at any time (`reset`); the other
    end follows when it learns from the first batch that was packed since.
    """

    in_flight = HISTORY

    def __init__(self, codec: FeatureCodec, groups: int, bits: int, memory: bool = False) -> None:
        super().__init__(codec)
        self.groups = groups
        self.words = 1 << bits
        # Weights of the words of one distribution add up to 2**17 at most: times TOTAL they fit 32 bits.
        top = 17 - bits
        #: What an index weighs that is so many 256ths of a bit less probable than the most probable one.
        self._weights = np.searchsorted(_LOG2[: 1 << top], np.arange(256 * top, -2, -1), side="right").astype(np.uint32)
        self._memory = Memory(HISTORY) if memory else None
        self._exponents = [weight for _, _, _, weight in NEIGHBOURS] + ([PAST] if memory else [])
        self._counts = np.zeros((len(self._exponents), groups, self.words + 1, self.words), dtype=np.int32)
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
        symbols = codes["codes"]
        plan, tables = scan(*symbols.shape), self._now
        volume = self._volume(symbols, plan)
        past = self._past(images, plan, symbols.shape, tables.version)
        picked = symbols.reshape(-1)[plan.order]
        starts, stops = np.empty((2, len(picked)), dtype=np.int64)
        block = max(_BLOCK // self.words, 1)
        for begin in range(0, len(picked), block):
            words = picked[begin : begin + block]
            ends = self._ends(tables, volume, past, plan, begin, begin + len(words))
            below = words * len(words) + np.arange(len(words))
            spare, total = np.uint32(rans.TOTAL - self.words), ends[-1]
            starts[begin : begin + block] = ends.take(below) * spare // total + words
            stops[begin : begin + block] = ends.take(below + len(words)) * spare // total + words + 1
        head = _HEAD.pack(tables.generation, tables.version, tables.check)
        if self._memory is not None:
            head += write_numbers(images)
        return head + rans.encode(starts, stops - starts, plan.runs)

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Tuple[Arrays, Optional[np.ndarray]]:
        n, _, h, w = shape
        if len(payload) < _HEAD.size:
            raise PayloadError("{} B of codes, expected at least {}".format(len(payload), _HEAD.size), len(payload))
        generation, version, check = _HEAD.unpack_from(payload)
        tables = self._find(generation, version, check)
        plan = scan(n, self.groups, h, w)
        images, start = read_numbers(payload, n, _HEAD.size) if self._memory is not None else (None, _HEAD.size)
        past = self._past(images, plan, (n, self.groups, h, w), version)
        decoder = rans.Decoder(payload, plan.runs, start)
        volume = self._volume(np.full((n, self.groups, h, w), self.words), plan)
        sizes = iter(decoder.sizes)
        begin = 0
        for run in plan.runs:
            ends = self._ends(tables, volume, past, plan, begin, begin + run)
            every = np.arange(self.words + 1, dtype=np.uint32)[:, None]
            slots = ends * np.uint32(rans.TOTAL - self.words) // ends[-1] + every
            columns, at = np.arange(run), 0
            while at < run:
                part = slice(at, at + next(sizes))
                picked = (slots[1:-1, part] <= decoder.slots()).sum(axis=0)
                below = picked * run + columns[part]
                starts = slots.take(below)
                decoder.advance(starts, slots.take(below + run) - starts)
                volume[plan.places[begin + part.start : begin + part.stop]] = picked
                at = part.stop
            begin += run
        decoder.finish()
        self._generation = generation
        codes = np.empty(len(plan.order), dtype=np.int32)
        codes[plan.order] = volume[plan.places]
        return {"codes": codes.reshape(n, self.groups, h, w)}, images

    def update(self, codes: Arrays, images: Optional[np.ndarray] = None) -> None:
        if self._passed_over:
            self._passed_over -= 1
            return
        if self._generation != self._now.generation:
            self._begin(self._generation)
        symbols = codes["codes"]
        plan = scan(*symbols.shape)
        volume = self._volume(symbols, plan)
        past = self._past(images, plan, symbols.shape, self._now.version)
        picked = symbols.reshape(-1)[plan.order]
        cells = self._rows(volume, past, plan, slice(None)) * self.words + picked
        seen = np.bincount(cells.reshape(-1), minlength=self._counts.size)
        self._counts += seen.reshape(self._counts.shape).astype(np.int32)
        while True:
            over = self._counts[0].sum(axis=(1, 2)) >= LIMIT
            if not over.any():
                break
            self._counts[:, over] >>= 1
        if self._memory is not None and images is not None:
            self._memory.keep(images, symbols, self._now.version + 1)
        self._now = self._tables(self._now.generation, self._now.version + 1)
        self._kept[self._now.version] = self._now
        if len(self._kept) > HISTORY + 1:
            self._kept.popitem(last=False)

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
        every = self._counts[0].sum(axis=1, dtype=np.int64)
        share = (every << 16) // np.maximum(every.sum(axis=-1, keepdims=True), 1)
        order0 = _log(share)
        start = (_SCALE * self.words * share >> 16).astype(np.int32)
        logs = np.empty(self._counts.shape, dtype=np.int16)
        for k, weight in enumerate(self._exponents):
            given = _log(_SCALE * self._counts[k] + start[:, None])
            logs[k] = (weight * (given - order0[:, None])) >> 3
        logs[0] += order0[:, None].astype(np.int16)
        seen = 0 if self._memory is None else self._memory.check
        check = zlib.crc32(logs.astype("<i2").tobytes(), seen) & 0xFFFF
        return Tables(generation, version, check, logs.reshape(-1, self.words))

    def _volume(self, symbols: np.ndarray, plan: Scan) -> np.ndarray:
        """Flat volume with `symbols` (n,G,h,w) in it, and "none" all around."""
        volume = np.full(plan.volume, self.words, dtype=np.int64)
        volume[:, 2:, 1:-1, 1:-1] = symbols
        return volume.reshape(-1)

    def _past(
        self, images: Optional[np.ndarray], plan: Scan, shape: Tuple[int, ...], version: int
    ) -> Optional[np.ndarray]:
        """(m,) in the order of `plan`: what the memory had at `version`, or "none"; None without a memory."""
        if self._memory is None:
            return None
        return np.asarray(self._memory.recall(images, shape, version, self.words).reshape(-1)[plan.order])

    def _rows(self, volume: np.ndarray, past: Optional[np.ndarray], plan: Scan, part: slice) -> np.ndarray:
        """(neighbours, k): the rows of the tables that the neighbours of a part of the indices choose."""
        known = volume.take(plan.around[:, part])
        if past is not None:
            known = np.concatenate([known, past[None, part]])
        tables = np.arange(len(known))[:, None] * self.groups + plan.groups[part]
        return np.asarray(tables * (self.words + 1) + known)

    def _ends(
        self, tables: Tables, volume: np.ndarray, past: Optional[np.ndarray], plan: Scan, begin: int, end: int
    ) -> np.ndarray:
        """(S+1, end - begin) uint32: the weight of all words below each, the last row that of all."""
        rows = self._rows(volume, past, plan, slice(begin, end))
        likely = tables.logs.take(rows[0], axis=0)
        for row in rows[1:]:
            likely += tables.logs.take(row, axis=0)
        likely = np.ascontiguousarray(likely.T)
        ends = np.zeros((self.words + 1, end - begin), dtype=np.uint32)
        # What is too unlikely weighs as the last, nothing; "clip" also spares a copy.
        self._weights.take(likely.max(axis=0) - likely, out=ends[1:], mode="clip")
        for s in range(1, self.words):
            ends[s + 1] += ends[s]
        return ends


def _log(counts: np.ndarray) -> np.ndarray:
    """256 times the binary logarithm of `counts` + 1, which is below 2**24: from 2**16 on, of their upper bits."""
    result = _LOG2.take(counts, mode="clip").astype(np.int32)
    large = counts >= 1 << 16
    if large.any():
        result[large] = _LOG2[counts[large] >> 8] + np.int32(2048)
    return np.asarray(result)
