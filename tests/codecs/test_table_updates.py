"""Updates of codebook tables: a peer ends with the same floats, near what was meant, for few bytes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.codecs.base import Arrays
from edgekit.codecs.entropy import levels
from edgekit.codecs.features.product import Product
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.table_updates import DIFFERENCES, LARGEST, WHOLE, pack_tables, size, steps
from edgekit.errors import PayloadError

GOLDEN = Path(__file__).parents[1] / "golden" / "table_updates.json"
CHANNELS = 12
CODECS = [
    SGQ(1, 1), SGQ(2, 4), SGQ(12, 4), SGQ(2, 8), SGQ(3, 3, "contiguous"), SGQ(3, 3, "significance"),
    SGQ(2, 4, weighted=True), Product(2, 4),
]  # fmt: skip
each_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)


def tables(codec: SGQ, seed: int = 1) -> Arrays:
    """Codewords after a ReLU, those of a group ten times as large as those of the group before."""
    rng = np.random.default_rng(seed)
    scale = np.repeat(10.0 ** np.arange(codec.groups) * 1e-3, CHANNELS // codec.groups)
    book = np.maximum(rng.normal(size=(codec.words, CHANNELS)), 0) * scale
    order = np.arange(CHANNELS) if codec.grouping == "contiguous" else np.random.default_rng(0).permutation(CHANNELS)
    found = {"codebook": np.clip(book, 0, 6e4).astype(np.float32), "order": order}
    return dict(found, significance=rng.uniform(0.1, 4, CHANNELS).astype(np.float32)) if codec.weighted else found


def plain(codebook: np.ndarray) -> Arrays:
    """Tables of `codebook` (words, C), channels in the network's order."""
    return {"codebook": codebook.astype(np.float32), "order": np.arange(codebook.shape[1], dtype=np.int64)}


def spread(codec: SGQ, codebook: np.ndarray) -> np.ndarray:
    """(G, 1, 1) root mean square of the values about the mean codeword."""
    return np.asarray(np.sqrt(codec.books(codebook).var(axis=1).mean(axis=1))[:, None, None])


class TestDifferences:
    @each_codec
    @pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.5])
    def test_what_arrives_is_off_by_about_the_tolerance_at_most(self, codec: SGQ, tolerance: float) -> None:
        sent, new = tables(codec, 1), tables(codec, 2)
        got = codec.patch(sent, codec.diff(sent, new, tolerance))
        apart = np.abs(codec.books(got["codebook"]) - codec.books(new["codebook"]))
        # Steps are an eighth of an octave from what was asked for at most.
        most = 2**0.13 * tolerance * spread(codec, new["codebook"])
        assert (apart <= most).all() and (apart > 0.6 * most).any()
        assert got["codebook"].dtype == np.float32 and got["codebook"].flags.c_contiguous
        assert got.keys() == sent.keys() and got["order"] is sent["order"]

    @each_codec
    def test_what_is_near_enough_is_no_bytes(self, codec: SGQ) -> None:
        sent, new = tables(codec, 1), tables(codec, 2)
        got = codec.patch(sent, codec.diff(sent, new, 0.1))
        assert codec.diff(got, new, 0.1) == codec.diff(new, new, 0.1) == b""

    def test_what_rounding_left_out_goes_later(self) -> None:
        """A value that creeps by a fifth of a step a time is never further off than half a step."""
        codec = SGQ(groups=2, bits=4)
        start = peer = tables(codec)
        new, sent = {**start, "codebook": start["codebook"].copy()}, 0
        unit = float(0.2 * spread(codec, start["codebook"])[1, 0, 0])
        for _ in range(40):
            new["codebook"][3, 7] += np.float32(unit / 5)
            payload = codec.diff(peer, new, 0.1)
            peer = codec.patch(peer, payload) if payload else peer
            sent += bool(payload)
            assert abs(float(peer["codebook"][3, 7] - new["codebook"][3, 7])) < 0.6 * unit
        others = np.ones_like(start["codebook"], dtype=bool)
        others[3, 7] = False
        np.testing.assert_array_equal(peer["codebook"][others], start["codebook"][others])
        assert 4 <= sent <= 10

    def test_patching_leaves_what_was_there_alone(self) -> None:
        codec = SGQ(groups=2, bits=4)
        sent = tables(codec)
        before = sent["codebook"].copy()
        codec.patch(sent, codec.diff(sent, tables(codec, 2), 0.1))
        np.testing.assert_array_equal(sent["codebook"], before)

    @pytest.mark.parametrize(("moved", "most"), [(0.02, 0.05), (0.1, 1.5), (0.3, 3.0)])
    def test_it_takes_few_bits_a_value(self, moved: float, most: float) -> None:
        """Of 4,096 values, each moved by so much of their spread; as float16 they take 16 bits."""
        codec, rng = SGQ(groups=8, bits=5), np.random.default_rng(0)
        book = rng.normal(size=(32, 128))
        moves = moved * rng.normal(size=book.shape)
        assert 8 * len(codec.diff(plain(book), plain(book + moves), 0.1)) < most * book.size

    def test_a_group_that_is_not_finite_stays_and_the_others_move(self) -> None:
        codec = SGQ(groups=3, bits=2)
        sent, new = tables(codec, 1), tables(codec, 2)
        new["codebook"][1, 0], new["codebook"][2, 5] = np.inf, np.nan
        got = codec.patch(sent, codec.diff(sent, new, 0.1))["codebook"]
        np.testing.assert_array_equal(got[:, :8], sent["codebook"][:, :8])
        assert not np.array_equal(got[:, 8:], sent["codebook"][:, 8:])
        assert codec.diff(sent, {**new, "codebook": np.full_like(new["codebook"], np.nan)}, 0.1) == b""

    def test_values_beyond_float16_stop_at_its_largest(self) -> None:
        codec = SGQ(groups=1, bits=1)
        sent, new = plain(np.zeros((2, 2))), plain(np.array([[1e9, -1e9], [0, 0]]))
        # Steps are of the spread that was meant, which is far larger than what can be sent.
        assert np.abs(codec.patch(sent, codec.diff(sent, new, 1e-5))["codebook"]).max() == LARGEST
        assert codec.patch(sent, codec.diff(sent, new, 0.0))["codebook"].tolist() == [[65504, -65504], [0, 0]]

    @pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e4])
    def test_any_scale_gets_there(self, scale: float) -> None:
        """Beyond the steps that have a number the nearest is taken; from zeros, too, whose spread is 0."""
        codec = SGQ(groups=2, bits=4)
        new = tables(codec)
        new["codebook"] *= np.float32(scale / new["codebook"].max())
        peer = {**new, "codebook": np.zeros_like(new["codebook"])}
        for _ in range(3):
            payload = codec.diff(peer, new, 0.1)
            peer = codec.patch(peer, payload) if payload else peer
        apart = np.abs(codec.books(peer["codebook"] - new["codebook"]))
        assert (apart <= 2**-33 + 0.12 * spread(codec, new["codebook"])).all()


def test_steps_are_four_an_octave() -> None:
    found = steps(np.arange(256, dtype=np.uint8))
    np.testing.assert_allclose(found, 2.0 ** ((np.arange(256) - 128) / 4), rtol=1e-7)
    np.testing.assert_array_equal(found, found.astype(np.float32))
    assert found[[0, 124, 128, 132, 252]].tolist() == [2.0**-32, 0.5, 1.0, 2.0, 2.0**31]


class TestWhole:
    """Tables go whole where a tolerance of 0 was asked for, and where the order of channels is another."""

    @each_codec
    def test_they_arrive_as_float16(self, codec: SGQ) -> None:
        sent, new = tables(codec, 1), tables(codec, 2)
        payload = codec.diff(sent, new, 0.0)
        assert payload[0] == WHOLE and len(payload) == 1 + size(CHANNELS, codec.words)
        got = codec.patch(sent, payload)
        np.testing.assert_array_equal(got["codebook"], new["codebook"].astype(np.float16).astype(np.float32))
        assert codec.diff(got, got, 0.0) == b"" and got.keys() == sent.keys()
        codec.check_tables(CHANNELS, got)

    @each_codec
    def test_a_new_order_is_followed_unless_groups_are_for_good(self, codec: SGQ) -> None:
        sent, new = tables(codec, 1), tables(codec, 2)
        new["order"] = np.roll(new["order"], 1)
        payload = codec.diff(sent, new, 1e9)
        if codec.grouping == "contiguous":
            with pytest.raises(PayloadError, match="groups are contiguous"):
                codec.patch(sent, payload)
            return
        got = codec.patch(sent, payload)
        np.testing.assert_array_equal(got["order"], new["order"])
        assert got["order"].dtype == np.int64
        np.testing.assert_array_equal(got["codebook"], new["codebook"].astype(np.float16).astype(np.float32))

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda p: p[:-1], "tables of 27 B, expected 28"),
            (lambda p: p + b"\0", "tables of 29 B"),
            (lambda p: p[:5] + b"\1" + p[6:], "do not match their check"),
            (lambda p: p[:-1] + bytes([p[-1] ^ 1]), "do not match their check"),
            (lambda p: bytes([WHOLE]) + pack_tables(np.array([0, 1, 1, 3]), np.zeros((2, 4))), "no permutation"),
            (lambda p: bytes([WHOLE]) + pack_tables(np.arange(4), np.full((2, 4), np.nan)), "not finite"),
        ],
    )
    def test_a_refusal_says_why(self, damage: Any, reason: str) -> None:
        codec = SGQ(groups=2, bits=1)
        sent = plain(np.zeros((2, 4)))
        payload = codec.diff(sent, plain(np.ones((2, 4))), 0.0)
        with pytest.raises(PayloadError, match=reason):
            codec.patch(sent, damage(payload))


class TestAnyBytes:
    """What comes from outside is tables, or a PayloadError."""

    @staticmethod
    def tried(codec: SGQ, payload: bytes) -> bool:
        """Whether `payload` gives tables; they are then such as a codec takes."""
        sent = tables(codec)
        try:
            got = codec.patch(sent, payload)
        except PayloadError as error:
            assert 0 <= error.offset <= len(payload)
            return False
        codec.check_tables(CHANNELS, got)
        assert np.abs(got["codebook"]).max() <= LARGEST
        return True

    @given(st.sampled_from(CODECS), st.binary(max_size=80))
    def test_bytes(self, codec: SGQ, payload: bytes) -> None:
        self.tried(codec, payload)

    @given(st.data(), st.sampled_from(CODECS))
    def test_steps_and_levels(self, data: st.DataObject, codec: SGQ) -> None:
        """Right levels under any steps, and then one byte changed."""
        width = CHANNELS // codec.groups
        moved = np.zeros((codec.groups, codec.words, width), dtype=np.int32)
        some = st.tuples(*(st.integers(0, n - 1) for n in moved.shape))
        for place in data.draw(st.lists(some, max_size=6)):
            moved[place] = data.draw(st.integers(-(2**31) + 1, 2**31 - 1))
        numbers = data.draw(st.binary(min_size=codec.groups, max_size=codec.groups))
        payload = bytes([DIFFERENCES]) + numbers
        places = np.flatnonzero(moved)
        payload += levels.encode(places, moved.reshape(-1)[places].astype(np.int64), np.array([moved.size]))
        still = ~moved.any(axis=(1, 2))
        assert self.tried(codec, payload) == (moved.any() and not np.frombuffer(numbers, np.uint8)[still].any())
        changed = bytearray(payload)
        changed[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        self.tried(codec, bytes(changed))

    @given(st.binary(min_size=size(CHANNELS, 2), max_size=size(CHANNELS, 2)))
    def test_tables(self, body: bytes) -> None:
        assert not self.tried(SGQ(1, 1), bytes([WHOLE]) + body), "four bytes of a SHA-256 fit by chance"

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            ("", "of 0 B and form None"),
            ("02", "of 1 B and form 2, expected form 0 with at least 3 B, or 1"),
            ("0080", "of 2 B and form 0, expected form 0 with at least 3 B"),
            ("008000", "0 B of levels, expected more"),
            ("0000000000000000", "moves 0 values"),
            ("007e800101000000d4010030208005", "steps for 1 groups in which nothing moves"),
        ],
    )
    def test_a_refusal_says_why(self, payload: str, reason: str) -> None:
        codec = SGQ(groups=2, bits=1)
        with pytest.raises(PayloadError, match=reason):
            codec.patch(plain(np.zeros((2, 4))), bytes.fromhex(payload))

    def test_an_update_of_the_line_s_first_version_is_refused(self) -> None:
        """Flags of the codewords that moved, and their values as float16."""
        codec = SGQ(groups=8, bits=4)
        for first in (0, 1, 7):
            flags = bytes([first]) + bytes(7) + b"\x10" + bytes(7)
            moved = int(np.unpackbits(np.frombuffer(flags, np.uint8)).sum())
            with pytest.raises(PayloadError):
                codec.patch(plain(np.zeros((16, 64))), flags + np.ones(8 * moved, "<f2").tobytes())


def golden_case(case: dict[str, Any]) -> dict[str, Any]:
    """The update that `case` asks for, and what arrives."""
    codec = SGQ(**case["config"])
    sent, new = ({**plain(np.array(case[name])), "order": np.array(case[f"{name}_order"])} for name in ("sent", "new"))
    payload = codec.diff(sent, new, case["tolerance"])
    got = codec.patch(sent, payload)
    bits = got["codebook"].view(np.uint32).tolist()
    return {**case, "payload": payload.hex(), "arrives": bits, "arrives_order": got["order"].tolist()}


def test_golden_bytes() -> None:
    """These were written once: a changed format takes another version of the line (`edgekit.line.frame.VERSION`)."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["line"] == 2 and len(golden["cases"]) == 4
    for case in golden["cases"]:
        assert golden_case(case) == case
