import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.entropy import rans
from edgekit.codecs.entropy.reference.rans import Decoder, chunks
from edgekit.codecs.entropy.slots import COST, PRECISION, TOTAL, cumulative, log2
from edgekit.errors import PayloadError

pytestmark = pytest.mark.usefixtures("coder")


def noise(n: int, seed: int = 1) -> np.ndarray:
    """(n,) integers below 2**16, the same for ever: numpy may change what its generators give."""
    values, state = [], seed
    for _ in range(n):
        state = (state * 1103515245 + 12345) % (1 << 31)
        values.append(state >> 15)
    return np.array(values, dtype=np.int64)


def sample(m: int, symbols: int, seed: int = 1, sharp: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots (4,symbols+1) of four distributions, and m contexts and symbols drawn from them."""
    slots = cumulative((1 + (noise(4 * symbols, seed).reshape(4, symbols) >> 9)) ** sharp)
    contexts, points = np.arange(m) % 4, noise(m, seed + 1) % TOTAL
    return slots, contexts, (slots[contexts, 1:-1] <= points[:, None]).sum(axis=1)


def encode(slots: np.ndarray, contexts: np.ndarray, symbols: np.ndarray, runs: list[int]) -> bytes:
    starts = slots[contexts, symbols]
    return rans.encode(starts, slots[contexts, symbols + 1] - starts, runs)


def decode(payload: bytes, slots: np.ndarray, contexts: np.ndarray, runs: list[int], start: int = 0) -> np.ndarray:
    decoder = Decoder(payload, runs, start)
    found, at = [np.zeros(0, dtype=np.int64)], 0
    for size in decoder.sizes:
        context = contexts[at : at + size]
        symbols = (slots[context, 1:-1] <= decoder.slots()[:, None]).sum(axis=1)
        starts = slots[context, symbols]
        decoder.advance(starts.astype(np.uint32), (slots[context, symbols + 1] - starts).astype(np.uint32))
        found.append(symbols)
        at += size
    decoder.finish()
    return np.concatenate(found)


def ideal(slots: np.ndarray, contexts: np.ndarray, symbols: np.ndarray) -> float:
    """Bytes by the entropy of the model."""
    widths = slots[contexts, symbols + 1] - slots[contexts, symbols]
    return float((PRECISION - np.log2(widths)).sum()) / 8


def test_golden_bytes() -> None:
    slots, contexts, symbols = sample(24, 16)
    assert encode(slots, contexts, symbols, [4, 20]).hex() == "0100906e802d87212db93af909d946"
    slots, contexts, symbols = sample(20_000, 16)
    payload = encode(slots, contexts, symbols, [5_000, 15_000])
    assert hashlib.sha256(payload).hexdigest() == "4332a1b1cd32f3149c88952d40e330a10fc402b98f90cbdabd7c92560f4d3bfb"


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.integers(1, 700), max_size=8), symbols=st.integers(1, 256), sharp=st.integers(0, 5),
    seed=st.integers(0, 99), start=st.integers(0, 3),
)  # fmt: skip
def test_what_was_coded_comes_back(runs: list[int], symbols: int, sharp: int, seed: int, start: int) -> None:
    slots, contexts, drawn = sample(sum(runs), symbols, seed, sharp)
    payload = encode(slots, contexts, drawn, runs)
    np.testing.assert_array_equal(decode(bytes(start) + payload, slots, contexts, runs, start), drawn)


@pytest.mark.parametrize("runs", [[16_384], [256] * 64, [256 * (1 + min(d, 14 - d)) for d in range(15)]])
@pytest.mark.parametrize("symbols", [4, 16, 256])
def test_within_three_percent_of_the_entropy(runs: list[int], symbols: int) -> None:
    slots, contexts, drawn = sample(16_384, symbols)
    least = ideal(slots, contexts, drawn)
    assert least <= len(encode(slots, contexts, drawn, runs)) <= 1.03 * least


def test_what_is_nearly_certain_takes_few_bytes_and_not_too_many_steps() -> None:
    slots = np.array([[0, TOTAL - 3, TOTAL]])
    contexts, symbols = np.zeros(60_000, dtype=np.int64), (noise(60_000) % 4000 == 0).astype(np.int64)
    payload = encode(slots, contexts, symbols, [60_000])
    assert len(payload) < ideal(slots, contexts, symbols) + 100
    assert len(Decoder(payload, [60_000]).sizes) < 4000
    np.testing.assert_array_equal(decode(payload, slots, contexts, [60_000]), symbols)


def test_a_lane_that_finds_the_stack_empty() -> None:
    """All there is to say is said first, so that the last symbols, which open the lanes, give no words."""
    slots = cumulative(np.array([[1] * 16, [10**6] + [0] * 15]))
    symbols = np.concatenate((noise(8_000) % 16, np.zeros(8_000, dtype=np.int64)))
    contexts = (np.arange(16_000) >= 8_000).astype(np.int64)
    payload = encode(slots, contexts, symbols, [16_000])
    np.testing.assert_array_equal(decode(payload, slots, contexts, [16_000]), symbols)
    with pytest.raises(PayloadError, match="left over"):
        decode(payload + b"\0\0", slots, contexts, [16_000])


@settings(max_examples=150, deadline=None)
@given(payload=st.binary(max_size=600), runs=st.lists(st.integers(1, 300), max_size=4))
def test_any_bytes(payload: bytes, runs: list[int]) -> None:
    slots, contexts, _ = sample(sum(runs), 5)
    try:
        assert len(decode(payload, slots, contexts, runs)) == sum(runs)
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_payload(data: st.DataObject) -> None:
    slots, contexts, symbols = sample(700, 16)
    payload = bytearray(encode(slots, contexts, symbols, [700]))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    for damaged in (bytes(payload), cut):
        try:
            assert len(decode(damaged, slots, contexts, [700])) == 700
        except PayloadError as error:
            assert 0 <= error.offset <= len(damaged)


@pytest.mark.parametrize("extra", [b"\0", b"\0\0", b"\1\0"])
def test_a_payload_that_goes_on(extra: bytes) -> None:
    slots, contexts, symbols = sample(3_000, 16)
    payload = encode(slots, contexts, symbols, [3_000])
    with pytest.raises(PayloadError):
        decode(payload + extra, slots, contexts, [3_000])
    with pytest.raises(PayloadError):
        Decoder(extra, [])


@settings(max_examples=80, deadline=None)
@given(runs=st.lists(st.integers(1, 5_000), min_size=1, max_size=6), bound=st.integers(1, 400))
def test_chunks_stay_within_runs_and_lanes(runs: list[int], bound: int) -> None:
    sizes = chunks(runs, min(bound, sum(runs)))
    ends = set(np.cumsum(sizes).tolist())
    assert sum(sizes) == sum(runs) and 1 <= min(sizes) <= max(sizes) <= bound
    assert ends.issuperset(np.cumsum(runs).tolist())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=300).filter(any))
def test_every_symbol_gets_its_share_of_the_slots(counts: list[int]) -> None:
    slots = cumulative(np.array(counts))
    widths = np.diff(slots)
    assert slots[0] == 0 and slots[-1] == TOTAL and widths.min() >= 1
    fair = np.array(counts) / sum(counts) * (TOTAL - len(counts)) + 1
    assert np.abs(widths - fair).max() <= 1 + 1e-6


def test_logarithm_and_cost() -> None:
    values = np.concatenate((np.arange(1, 70_000), [(1 << 30) - 1, 1 << 30, (1 << 31) - 1]))
    np.testing.assert_array_equal(log2(values), np.floor(256 * np.log2(values)))
    assert COST[TOTAL] == 0 and COST[1] == 256 * PRECISION
    assert COST[TOTAL // 2] == 256
