"""Indices coded given those around them, many at once. Format and formula: `edgekit.codecs.entropy.context`."""

from functools import lru_cache
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.entropy.mixing import LIMIT, LOG2, NEIGHBOURS, SCALE, Mixing
from edgekit.codecs.entropy.reference import rans
from edgekit.codecs.entropy.slots import TOTAL
from edgekit.codecs.entropy.temporal import Past
from edgekit.errors import ShapeError

#: Words times indices that are worked on at once, as many as a cache holds.
_BLOCK = 1 << 17


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


def pack(mix: Mixing, logs: np.ndarray, codes: np.ndarray, past: Optional[Past], bits_per_lane: int) -> bytes:
    """The bytes of `codes` (n,G,h,w) int32 by the tables `logs`, and with a memory by what it has of them, `past`.

    ShapeError unless they are indices of `mix.words` words in `mix.groups` groups.
    """
    check(mix, codes)
    plan = scan(*codes.shape)
    volume, known = _volume(codes, mix, plan), _in_turn(past, mix, plan)
    picked = codes.reshape(-1)[plan.order]
    starts, stops = np.empty((2, len(picked)), dtype=np.int64)
    block = max(_BLOCK // mix.words, 1)
    for begin in range(0, len(picked), block):
        words = picked[begin : begin + block]
        ends = _ends(mix, logs, volume, known, plan, slice(begin, begin + len(words)))
        below = words * len(words) + np.arange(len(words))
        spare, total = np.uint32(TOTAL - mix.words), ends[-1]
        starts[begin : begin + block] = ends.take(below) * spare // total + words
        stops[begin : begin + block] = ends.take(below + len(words)) * spare // total + words + 1
    return rans.encode(starts, stops - starts, plan.runs, bits_per_lane)


def unpack(
    mix: Mixing, logs: np.ndarray, payload: bytes, start: int, shape: Sequence[int], past: Optional[Past]
) -> np.ndarray:
    """Codes of `shape` (n,G,h,w) int32 from byte `start` of `payload` to the end.

    The inverse of `pack`. PayloadError on bytes that it does not write.
    """
    plan = scan(*shape)
    decoder = rans.Decoder(payload, plan.runs, start)
    volume, known = _volume(np.full(shape, mix.words), mix, plan), _in_turn(past, mix, plan)
    sizes = iter(decoder.sizes)
    begin = 0
    for run in plan.runs:
        ends = _ends(mix, logs, volume, known, plan, slice(begin, begin + run))
        every = np.arange(mix.words + 1, dtype=np.uint32)[:, None]
        slots = ends * np.uint32(TOTAL - mix.words) // ends[-1] + every
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
    codes = np.empty(len(plan.order), dtype=np.int32)
    codes[plan.order] = volume[plan.places]
    return codes.reshape(shape)


def count(mix: Mixing, counts: np.ndarray, codes: np.ndarray, past: Optional[Past]) -> None:
    """Adds `codes` (n,G,h,w) int32 to `counts` (neighbours,G,S+1,S) int32, and halves those of groups that have many.

    ShapeError as of `pack`.
    """
    check(mix, codes)
    plan = scan(*codes.shape)
    rows = _rows(mix, _volume(codes, mix, plan), _in_turn(past, mix, plan), plan, slice(None))
    cells = rows * mix.words + codes.reshape(-1)[plan.order]
    seen = np.bincount(cells.reshape(-1), minlength=counts.size)
    counts += seen.reshape(counts.shape).astype(np.int32)
    while True:
        over = counts[0].sum(axis=(1, 2)) >= LIMIT
        if not over.any():
            break
        counts[:, over] >>= 1


def logs(mix: Mixing, counts: np.ndarray) -> np.ndarray:
    """The tables of `counts`, of the same shape, int16, 256ths of a bit.

    Index c at neighbour k of a word of group g, or S where there is none, chooses row [k, g, c].
    """
    every = counts[0].sum(axis=1, dtype=np.int64)
    share = (every << 16) // np.maximum(every.sum(axis=-1, keepdims=True), 1)
    order0 = _log(share)
    start = (SCALE * mix.words * share >> 16).astype(np.int32)
    tables = np.empty(counts.shape, dtype=np.int16)
    for k, weight in enumerate(mix.exponents):
        given = _log(SCALE * counts[k] + start[:, None])
        tables[k] = (weight * (given - order0[:, None])) >> 3
    tables[0] += order0[:, None].astype(np.int16)
    return tables


def check(mix: Mixing, codes: np.ndarray) -> None:
    """ShapeError unless `codes` (n,G,h,w) are indices of `mix.words` words in `mix.groups` groups."""
    fits = codes.ndim == 4 and codes.shape[1] == mix.groups
    if not fits or (codes.size and not 0 <= codes.min() <= codes.max() < mix.words):
        told = "codes of shape {}, expected (n,{},h,w) of 0 to {}"
        raise ShapeError(told.format(codes.shape, mix.groups, mix.words - 1))


def _volume(codes: np.ndarray, mix: Mixing, plan: Scan) -> np.ndarray:
    """Flat volume with `codes` (n,G,h,w) in it, and "none" all around."""
    volume = np.full(plan.volume, mix.words, dtype=np.int64)
    volume[:, 2:, 1:-1, 1:-1] = codes
    return volume.reshape(-1)


def _in_turn(past: Optional[Past], mix: Mixing, plan: Scan) -> Optional[np.ndarray]:
    """(m,) the memory's codes in the order of `plan`, and "none" for images that it does not know."""
    if past is None:
        return None
    known = past.known.astype(bool)[:, None, None, None]
    return np.asarray(np.where(known, past.codes, np.int64(mix.words)).reshape(-1)[plan.order])


def _rows(mix: Mixing, volume: np.ndarray, known: Optional[np.ndarray], plan: Scan, part: slice) -> np.ndarray:
    """(neighbours, k): the rows of the tables that the neighbours of a part of the indices choose."""
    around = volume.take(plan.around[:, part])
    if known is not None:
        around = np.concatenate([around, known[None, part]])
    tables = np.arange(len(around))[:, None] * mix.groups + plan.groups[part]
    return np.asarray(tables * (mix.words + 1) + around)


def _ends(
    mix: Mixing, logs: np.ndarray, volume: np.ndarray, known: Optional[np.ndarray], plan: Scan, part: slice
) -> np.ndarray:
    """(S+1, k) uint32 for a part of the indices: the weight of all words below each, the last row that of all."""
    rows, table = _rows(mix, volume, known, plan, part), logs.reshape(-1, mix.words)
    likely = table.take(rows[0], axis=0)
    for row in rows[1:]:
        likely += table.take(row, axis=0)
    likely = np.ascontiguousarray(likely.T)
    ends = np.zeros((mix.words + 1, likely.shape[1]), dtype=np.uint32)
    # What is too unlikely weighs as the last, nothing; "clip" also spares a copy.
    mix.weights.take(likely.max(axis=0) - likely, out=ends[1:], mode="clip")
    for s in range(1, mix.words):
        ends[s + 1] += ends[s]
    return ends


def _log(counts: np.ndarray) -> np.ndarray:
    """256 times the binary logarithm of `counts` + 1, which is below 2**24: from 2**16 on, of their upper bits."""
    result = LOG2.take(counts, mode="clip").astype(np.int32)
    large = counts >= 1 << 16
    if large.any():
        result[large] = LOG2[counts[large] >> 8] + np.int32(2048)
    return np.asarray(result)
