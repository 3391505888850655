import hashlib
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.base import Arrays
from edgekit.codecs.entropy import kernels
from edgekit.codecs.entropy.context import HISTORY, ContextStream
from edgekit.codecs.entropy.mixing import NEIGHBOURS
from edgekit.codecs.entropy.reference import rans
from edgekit.codecs.entropy.reference.context import scan
from edgekit.codecs.entropy.slots import PRECISION
from edgekit.codecs.features.sgq import SGQ
from edgekit.errors import PayloadError, ShapeError, UnknownName

pytestmark = pytest.mark.usefixtures("coder")
each_coding = pytest.mark.parametrize("coding", ["context", "temporal"])


def stream(groups: int = 4, bits: int = 4, coding: str = "context") -> ContextStream:
    end = SGQ(groups, bits, coding=coding).stream()
    assert isinstance(end, ContextStream)
    return end


class Batch(NamedTuple):
    """Codes, and the numbers of their images."""

    codes: Arrays
    images: np.ndarray | None = None

    @property
    def indices(self) -> np.ndarray:
        return self.codes["codes"]


def batch(seed: int, n: int = 4, groups: int = 4, bits: int = 4, side: int = 6) -> Batch:
    """Codes that resemble those around them, the upper bits of smooth random maps, of `n` images out of eleven."""
    maps = np.random.default_rng(seed).normal(size=(n, groups, side, side))
    for _ in range(2):
        maps = maps + np.roll(maps, 1, axis=2) + np.roll(maps, 1, axis=3) + np.roll(maps, 1, axis=1)
    levels = (maps - maps.min()) / (maps.max() - maps.min()) * (2**bits - 0.01)
    return Batch({"codes": np.floor(levels).astype(np.int32)}, (7 * seed + np.arange(n)) % 11)


def shape(codes: Batch) -> tuple[int, ...]:
    n, groups, h, w = codes.indices.shape
    return n, 4 * groups, h, w


def equal(end: ContextStream, payload: bytes, sent: Batch) -> None:
    codes, images = end.unpack(payload, shape(sent))
    np.testing.assert_array_equal(codes["codes"], sent.indices)
    if end.codec.config["coding"] == "temporal" and sent.images is not None:
        assert images is not None
        np.testing.assert_array_equal(images, sent.images)
    else:
        assert images is None


def plain(n: int, groups: int, bits: int, seed: int) -> Batch:
    """Codes from integers alone, the same for ever."""
    count, values, state = n * groups * 16, [], seed
    for _ in range(count):
        state = (state * 1103515245 + 12345) % (1 << 31)
        values.append((state >> 16) % (1 + (state >> 20) % 2**bits))
    return Batch({"codes": np.array(values, dtype=np.int32).reshape(n, groups, 4, 4)})


#: Check of the tables, and hash of payloads and tables, by groups and bits.
GOLDEN = {
    (4, 4): (0x623D, "2473e0bcd2fea8aa"),
    (2, 6): (0xF784, "feeafa1504811ec9"),
    (1, 1): (0x1C27, "e909e5eac7d552ae"),
    (3, 8): (0xEDA2, "6a1f27dcc077a05a"),
}


@pytest.mark.parametrize("groups, bits", GOLDEN)
def test_golden_bytes_and_tables(groups: int, bits: int) -> None:
    end, digest = stream(groups, bits), hashlib.sha256()
    for seed in range(4):
        codes = plain(3, groups, bits, seed)
        digest.update(end.pack(*codes))
        end.update(*codes)
    digest.update(end._now.logs.astype("<i2").tobytes())
    assert (end.check, digest.hexdigest()[:16]) == GOLDEN[groups, bits]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 5), groups=st.integers(1, 5), bits=st.integers(1, 8), h=st.integers(1, 5), w=st.integers(1, 5),
    seed=st.integers(0, 99), batches=st.integers(1, 3),
)  # fmt: skip
def test_what_was_packed_comes_back(n: int, groups: int, bits: int, h: int, w: int, seed: int, batches: int) -> None:
    rng = np.random.default_rng(seed)
    sender, receiver = stream(groups, bits), stream(groups, bits)
    for _ in range(batches):
        indices = rng.integers(0, 2 ** rng.integers(0, bits + 1), (n, groups, h, w), dtype=np.int32)
        codes = Batch({"codes": indices})
        equal(receiver, sender.pack(*codes), codes)
        sender.update(*codes)
        receiver.update(*codes)
    assert sender.check == receiver.check


@each_coding
@settings(max_examples=150, deadline=None)
@given(payload=st.binary(max_size=300), headed=st.booleans())
def test_any_bytes(payload: bytes, headed: bool, coding: str) -> None:
    end = stream(coding=coding)
    head = end.pack(*batch(0))[:7] if headed else b""
    try:
        assert end.unpack(head + payload, (4, 16, 6, 6))[0]["codes"].shape == (4, 4, 6, 6)
    except PayloadError as error:
        assert 0 <= error.offset <= len(head + payload)


@each_coding
@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 400), flip=st.integers(1, 255))
def test_a_damaged_payload(at: int, flip: int, coding: str) -> None:
    end, codes = stream(coding=coding), batch(1)
    end.update(*batch(0))
    payload = bytearray(end.pack(*codes))
    payload[at % len(payload)] ^= flip
    try:
        assert end.unpack(bytes(payload), shape(codes))[0]["codes"].shape == codes.indices.shape
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)


def test_neighbours_are_known_before() -> None:
    plan = scan(2, 3, 4, 5)
    turn = np.full(np.prod(plan.volume), -1)
    turn[plan.places] = np.repeat(np.arange(len(plan.runs)), plan.runs)
    assert len(plan.around) == len(NEIGHBOURS) == len({tuple(places) for places in plan.around.tolist()})
    assert (turn[plan.around] < turn[plan.places]).all()


@pytest.mark.parametrize("groups, bits", [(8, 4), (4, 6)])
def test_learns_and_stays_near_the_entropy_of_its_model(
    groups: int, bits: int, coder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    least: list[float] = []
    encode = rans.encode

    def watched(starts: np.ndarray, widths: np.ndarray, runs: list[int], bits_per_lane: int) -> bytes:
        least.append(float((PRECISION - np.log2(widths.astype(float))).sum()) / 8)
        return encode(starts, widths, runs, bits_per_lane)

    monkeypatch.setattr(rans, "encode", watched)
    end = stream(groups, bits)
    sizes = []
    for seed in range(6):
        codes = batch(seed, 32, groups, bits, 8)
        payload = end.pack(*codes)
        with kernels.using("numpy"):
            assert end.pack(*codes) == payload
        sizes.append(len(payload))
        end.update(*codes)
    fixed = codes.indices.size * bits / 8
    assert sizes[0] < 1.03 * fixed + 64 and sizes[-1] < 0.86 * fixed
    assert len(least) == len(sizes) * (1 if coder == "native" else 2)
    for size, bound in zip(sizes, least[:: len(least) // len(sizes)], strict=True):
        assert bound <= size <= 1.03 * bound


def test_forgets() -> None:
    """After many batches of one kind, batches of another are soon coded as well as by one who knows no other."""
    end, fresh = stream(1, 2), stream(1, 2)
    for _ in range(5):
        end.update({"codes": np.zeros((64, 1, 32, 32), dtype=np.int32)})
    other = [
        Batch({"codes": np.random.default_rng(i).integers(1, 4, (64, 1, 32, 32), dtype=np.int32)}) for i in range(4)
    ]
    for codes in other:
        end.update(*codes)
        fresh.update(*codes)
    assert len(end.pack(*other[0])) < 1.05 * len(fresh.pack(*other[0]))


@each_coding
@pytest.mark.parametrize("depth", [1, 2, 3, 4, HISTORY])
def test_two_ends_stay_together(depth: int, coding: str) -> None:
    """Batches in flight; some are lost on the way, or their gradient is, and the sender sends their bytes again."""
    rng = np.random.default_rng(depth)
    sender, receiver = stream(coding=coding), stream(coding=coding)
    waiting: list[tuple[int, bytes, Batch]] = []
    trained = 0

    def arrives(step: int, payload: bytes, codes: Batch) -> None:
        nonlocal trained
        # A service answers what comes again from its record; else it may be older than what is kept.
        if step == trained or depth <= HISTORY // 2:
            equal(receiver, payload, codes)
        if step == trained:
            receiver.update(*codes)
            trained += 1

    for step in range(20):
        codes = batch(step)
        waiting.append((step, sender.pack(*codes), codes))
        if rng.random() < 0.8:
            for sent in waiting:
                arrives(*sent)
        while len(waiting) >= depth:
            arrives(*waiting[0])
            sender.update(*waiting.pop(0)[2])
        test = batch(1000 + step)
        equal(receiver, sender.pack(*test), test)
    for sent in waiting:
        arrives(*sent)
        sender.update(*sent[2])
    assert (sender.version, sender.check) == (receiver.version, receiver.check) == (20, sender.check)


@each_coding
@pytest.mark.parametrize("in_flight", [0, 1, 3])
def test_the_receiver_follows_a_sender_that_begins_anew(in_flight: int, coding: str) -> None:
    sender, receiver = stream(coding=coding), stream(coding=coding)
    for seed in range(5):
        sender.update(*batch(seed))
        receiver.update(*batch(seed))
    before = [(sender.pack(*batch(10 + i)), batch(10 + i)) for i in range(in_flight)]
    sender.reset(in_flight)
    assert sender.version == 0
    new = [(sender.pack(*batch(20 + i)), batch(20 + i)) for i in range(2)]
    for payload, codes in before:
        equal(receiver, payload, codes)
        receiver.update(*codes)
    # A test batch of the new start moves nothing.
    equal(receiver, sender.pack(*batch(30)), batch(30))
    for payload, codes in new:
        equal(receiver, payload, codes)
        receiver.update(*codes)
    for _, codes in before + new:
        sender.update(*codes)
    assert (sender.version, sender.check) == (receiver.version, receiver.check) == (2, sender.check)
    equal(receiver, sender.pack(*batch(31)), batch(31))
    if before:
        with pytest.raises(PayloadError, match="begin anew"):
            receiver.unpack(before[0][0], shape(before[0][1]))


@each_coding
def test_tables_the_receiver_does_not_have(coding: str) -> None:
    sender, receiver = stream(coding=coding), stream(coding=coding)
    codes = batch(0)
    old = sender.pack(*codes)
    for seed in range(HISTORY + 2):
        sender.update(*batch(seed))
        if seed == 0:
            aged = sender.pack(*codes)
        with pytest.raises(PayloadError, match=r"this end has 0\.0 to 0\.0.*begin anew with version 0"):
            receiver.unpack(sender.pack(*codes), shape(codes))
    equal(receiver, old, codes)
    for seed in range(HISTORY + 2):
        receiver.update(*batch(seed + 1))
    with pytest.raises(PayloadError, match="check"):
        receiver.unpack(sender.pack(*codes), shape(codes))
    with pytest.raises(PayloadError, match=r"tables 0\.1 .* 0\.2 to 0\.10"):
        receiver.unpack(aged, shape(codes))
    # Version 0 is never forgotten.
    equal(receiver, old, codes)


def test_plain_packing_learns_nothing() -> None:
    codec = SGQ(4, 4)
    end, codes = codec.stream(), batch(0)
    assert end.pack(*codes) == codec.pack(codes.codes) == SGQ(4, 4, coding="context").pack(codes.codes)
    end.update(*codes)
    assert end.pack(*codes) == codec.pack(codes.codes)


def test_the_coding_is_part_of_the_configuration() -> None:
    codec = SGQ(4, 4, coding="context")
    assert SGQ(**codec.config) == codec != SGQ(4, 4) and "coding" not in SGQ(4, 4).config
    with pytest.raises(UnknownName, match="did you mean context"):
        SGQ(4, 4, coding="contex")


@pytest.mark.parametrize(
    "codes", [np.full((1, 4, 2, 2), 16), np.full((1, 4, 2, 2), -1), np.zeros((1, 5, 2, 2)), np.zeros(4)]
)
def test_what_are_no_indices(codes: np.ndarray) -> None:
    end = stream(4, 4)
    for call in (end.pack, end.update):
        with pytest.raises(ShapeError, match=r"expected \(n,4,h,w\) of 0 to 15"):
            call({"codes": codes.astype(np.int32)})
