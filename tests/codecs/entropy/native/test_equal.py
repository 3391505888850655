"""The compiled kernels against those of numpy: the same bytes, and the same payloads refused, with the same words."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.entropy.mixing import Mixing, mixing
from edgekit.codecs.entropy.native import bits as native_bits
from edgekit.codecs.entropy.native import context as native_context
from edgekit.codecs.entropy.native import rans as native_rans
from edgekit.codecs.entropy.native import rows as native_rows
from edgekit.codecs.entropy.reference import bits, context, rans, rows
from edgekit.codecs.entropy.slots import TOTAL, cumulative
from edgekit.codecs.entropy.tables import tables_of
from edgekit.codecs.entropy.temporal import Past
from edgekit.errors import PayloadError

pytestmark = pytest.mark.usefixtures("loads")


class Asked(Exception):
    """A compiled kernel left the work to numpy's."""


def outcome(function: Callable[[], Any]) -> tuple[Any, ...]:
    """What `function` gives or raises, to be compared."""
    try:
        result = np.asarray(function())
    except PayloadError as error:
        return str(error), error.offset
    return result.dtype, result.shape, result.tobytes()


def alike(native: ModuleType, reference: ModuleType, name: str, *arguments: Any) -> None:
    """Both decoders say the same of a payload, and the compiled one asks numpy's about none but bad ones."""

    def refuse(*_: Any) -> None:
        raise Asked

    expected = outcome(functools.partial(getattr(reference, name), *arguments))
    assert outcome(functools.partial(getattr(native, name), *arguments)) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "reference", type("Refusing", (), {name: staticmethod(refuse)}))
        try:
            getattr(native, name)(*arguments)
        except Asked:
            assert len(expected) == 2, "the compiled kernel refused what is right"
        else:
            assert len(expected) == 3, "the compiled kernel took what is wrong"


@st.composite
def damaged(draw: st.DrawFn, payload: bytes) -> bytes:
    """`payload`: as it is, cut, longer, or with other bytes in some places."""
    changed = bytearray(payload)
    for at, value in draw(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=3)):
        if changed:
            changed[at % len(changed)] = value
    end = draw(st.just(len(changed)) | st.integers(0, len(changed)))
    return bytes(changed[:end]) + draw(st.just(b"") | st.binary(max_size=4))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), count=st.integers(0, 60), width=st.integers(1, 16), seed=st.integers(0, 99))
def test_bits(data: st.DataObject, count: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << width, count)
    payload = bits.pack(values, width)
    assert native_bits.pack(values, width) == payload
    start = data.draw(st.integers(0, 3))
    alike(native_bits, bits, "unpack", bytes(start) + data.draw(damaged(payload)), count, width, start)


def model(symbols: int, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """Slots (4,symbols+1) of four distributions, of which some are nearly certain."""
    rng = np.random.default_rng(seed)
    return cumulative(1 + rng.integers(0, 60, (4, symbols)) ** rng.integers(0, 6)), rng


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(), runs=st.lists(st.integers(0, 900), max_size=6), symbols=st.integers(1, 256),
    seed=st.integers(0, 99), per_lane=st.sampled_from([1, 40, 256, 1024]),
)  # fmt: skip
def test_rans(data: st.DataObject, runs: list[int], symbols: int, seed: int, per_lane: int) -> None:
    slots, rng = model(symbols, seed)
    kinds = rng.integers(0, 4, sum(runs))
    drawn = (slots[kinds, 1:-1] <= rng.integers(0, TOTAL, (len(kinds), 1))).sum(axis=1)
    starts = slots[kinds, drawn]
    widths = slots[kinds, drawn + 1] - starts
    assert native_rans.encode(starts, widths, runs, per_lane) == rans.encode(starts, widths, runs, per_lane)
    start = data.draw(st.integers(0, 3))
    payload = bytes(start) + data.draw(damaged(rans.encode(starts, widths, [len(kinds)], per_lane)))
    alike(native_rans, rans, "decode", payload, start, kinds, *tables_of(slots))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), payload=st.binary(max_size=600), count=st.integers(0, 5000))
def test_rans_of_any_bytes(data: st.DataObject, payload: bytes, count: int) -> None:
    slots, rng = model(5, 1)
    alike(native_rans, rans, "decode", payload, 0, rng.integers(0, 4, count), *tables_of(slots))


def test_long_rans() -> None:
    """More symbols than lanes for them, and more lanes than fit a head."""
    slots, rng = model(3, 2)
    for count, per_lane in ((300_000, 256), (200_000, 1)):
        kinds = rng.integers(0, 4, count)
        drawn = (slots[kinds, 1:-1] <= rng.integers(0, TOTAL, (count, 1))).sum(axis=1)
        starts = slots[kinds, drawn]
        widths = slots[kinds, drawn + 1] - starts
        payload = rans.encode(starts, widths, [count], per_lane)
        assert native_rans.encode(starts, widths, [count], per_lane) == payload
        alike(native_rans, rans, "decode", payload, 0, kinds, *tables_of(slots))


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(), shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30)), min_size=1, max_size=4),
    spread=st.sampled_from([0.5, 3, 60, 1e5, 2**29]), share=st.sampled_from([0.02, 0.3, 1]), seed=st.integers(0, 99),
)  # fmt: skip
def test_rows(data: st.DataObject, shapes: list[tuple[int, int]], spread: float, share: float, seed: int) -> None:
    lines, sizes = np.array([(count, count * width) for count, width in shapes]).T.copy()
    rng = np.random.default_rng(seed)
    levels = np.rint(rng.laplace(scale=spread, size=sizes.sum()) * (rng.random(sizes.sum()) < share))
    levels = np.clip(levels, -(2**31) + 1, 2**31 - 1).astype(np.int64)
    payload = rows.encode(levels, sizes, lines)
    assert native_rows.encode(levels, sizes, lines) == payload
    start = data.draw(st.integers(0, 3))
    alike(native_rows, rows, "decode", bytes(start) + data.draw(damaged(payload)), start, sizes, lines)


@settings(max_examples=100, deadline=None)
@given(payload=st.binary(max_size=300))
def test_rows_of_any_bytes(payload: bytes) -> None:
    alike(native_rows, rows, "decode", payload, 0, np.array([90, 7]), np.array([10, 1]))


def test_many_rows() -> None:
    """Enough of them that models forget, and levels that are dense, sparse and long."""
    rng = np.random.default_rng(4)
    sizes, lines = np.array([64 * 288, 64, 32 * 288]), np.array([64, 1, 32])
    spread = np.repeat(10.0 ** rng.uniform(-1, 2, sizes.sum() // 288 + 1), 288)[: sizes.sum()]
    levels = np.rint(rng.normal(size=sizes.sum()) * spread).astype(np.int64)
    payload = rows.encode(levels, sizes, lines)
    assert native_rows.encode(levels, sizes, lines) == payload
    alike(native_rows, rows, "decode", payload, 0, sizes, lines)


@st.composite
def learned(draw: st.DrawFn) -> tuple[Mixing, np.ndarray, np.ndarray, Past | None]:
    """A mixture, counts of its tables, codes that they foretell more or less, and what a memory has of the codes."""
    groups, width, memory = draw(st.integers(1, 5)), draw(st.integers(1, 8)), draw(st.booleans())
    mix = mixing(groups, width, memory)
    n, h, w = draw(st.integers(0, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    codes = rng.integers(0, 1 + rng.integers(0, mix.words), (n, groups, h, w), dtype=np.int32)
    counts = rng.integers(0, 1 << draw(st.integers(0, 16)), (len(mix.exponents), groups, mix.words + 1, mix.words))
    # As in tables that have learned: every neighbour has seen as much.
    counts = (counts * (rng.random(counts.shape) < 0.2)).astype(np.int32)
    before = rng.integers(0, mix.words, codes.shape).astype(np.uint8)
    past = Past(rng.integers(0, 2, n).astype(np.uint8).tobytes(), before.tobytes()) if memory else None
    return mix, counts, codes, past


@settings(max_examples=150, deadline=None)
@given(data=st.data(), known=learned())
def test_context(data: st.DataObject, known: tuple[Mixing, np.ndarray, np.ndarray, Past | None]) -> None:
    mix, counts, codes, past = known
    logs = context.logs(mix, counts)
    np.testing.assert_array_equal(native_context.logs(mix, counts), logs)
    payload = context.pack(mix, logs, codes, past, 256)
    assert native_context.pack(mix, logs, codes, past, 256) == payload
    start = data.draw(st.integers(0, 3))
    payload = bytes(start) + data.draw(damaged(payload))
    alike(native_context, context, "unpack", mix, logs, payload, start, codes.shape, past)
    expected = counts.copy()
    context.count(mix, expected, codes, past)
    native_context.count(mix, counts, codes, past)
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("plane", [(0, 3), (3, 0), (0, 0)])
def test_planes_without_positions(plane: tuple[int, int], memory: bool) -> None:
    mix = mixing(1, 4, memory)
    counts = np.zeros((len(mix.exponents), 1, 17, 16), dtype=np.int32)
    logs, codes = context.logs(mix, counts), np.zeros((2, 1, *plane), dtype=np.int32)
    past = Past(b"\x01\x00", b"") if memory else None
    for kernel in (native_context, context):
        assert kernel.pack(mix, logs, codes, past, 256) == b""
        assert kernel.unpack(mix, logs, b"", 0, codes.shape, past).shape == codes.shape
        with pytest.raises(PayloadError):
            kernel.unpack(mix, logs, b"a", 0, codes.shape, past)
        kernel.count(mix, counts, codes, past)
        assert not counts.any()


def test_a_large_batch() -> None:
    mix = mixing(8, 4, True)
    rng = np.random.default_rng(3)
    codes = (rng.integers(0, 16, (32, 8, 16, 16)) & rng.integers(0, 16, (32, 8, 16, 16))).astype(np.int32)
    before = np.where(rng.random(codes.shape) < 0.9, codes, 3).astype(np.uint8)
    past = Past((rng.random(32) < 0.9).tobytes(), before.tobytes())
    counts = np.zeros((8, 8, 17, 16), dtype=np.int32)
    for _ in range(20):
        expected = counts.copy()
        context.count(mix, expected, codes, past)
        native_context.count(mix, counts, codes, past)
        np.testing.assert_array_equal(counts, expected)
    logs = native_context.logs(mix, counts)
    np.testing.assert_array_equal(logs, context.logs(mix, counts))
    payload = native_context.pack(mix, logs, codes, past, 256)
    assert payload == context.pack(mix, logs, codes, past, 256)
    alike(native_context, context, "unpack", mix, logs, payload, 0, codes.shape, past)


@pytest.mark.parametrize("damage", [lambda payload: payload[:-2], lambda payload: payload[:5], lambda payload: b""])
def test_a_bad_payload_of_many_levels_is_not_read_again(
    damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain Python a network of millions of weights would take minutes."""
    sizes, lines = np.array([1 << 17]), np.array([64])
    levels = np.random.default_rng(0).integers(-1, 2, 1 << 17)
    payload = native_rows.encode(levels, sizes, lines)
    monkeypatch.delattr(rows, "decode")
    np.testing.assert_array_equal(native_rows.decode(b"xy" + payload, 2, sizes, lines), levels)
    with pytest.raises(
        PayloadError, match="that are no levels of 131072 values: damaged, or of other weights"
    ) as caught:
        native_rows.decode(b"xy" + damage(payload), 2, sizes, lines)
    assert caught.value.offset == 2
