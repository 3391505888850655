"""sgq: nearest codewords, tables that follow, and the mask."""

import numpy as np
import pytest

from edgekit.codecs.base import Arrays
from edgekit.codecs.features.sgq import SGQ
from edgekit.errors import ShapeError, UsageError

pytestmark = pytest.mark.usefixtures("coder")
CONFIGS = [(1, 1), (2, 4), (4, 2), (3, 3), (12, 4), (2, 8)]
CHANNELS = 12


def feature(n=3, seed=0):
    """A feature after a ReLU."""
    return np.maximum(np.random.default_rng(seed).normal(size=(n, CHANNELS, 3, 5)), 0).astype(np.float32)


def tables(codec, seed=1):
    rng = np.random.default_rng(seed)
    book = np.maximum(rng.normal(size=(codec.words, CHANNELS)), 0).astype(np.float32)
    order = rng.permutation(CHANNELS) if codec.grouping != "contiguous" else np.arange(CHANNELS)
    weights = rng.uniform(0.1, 4, CHANNELS).astype(np.float32)
    return {"codebook": book, "order": order, **({"significance": weights} if codec.weighted else {})}


MORE = [
    SGQ(groups=3, bits=3, grouping="contiguous"),
    SGQ(groups=3, bits=3, grouping="significance"),
    SGQ(groups=2, bits=4, weighted=True),
]
each_codec = pytest.mark.parametrize("codec", [SGQ(*config) for config in CONFIGS] + MORE, ids=repr)


@each_codec
def test_codes_are_the_nearest_codewords(codec):
    z, t = feature(), tables(codec)
    codes = codec.quantize(z, t)["codes"]
    assert codes.shape == (3, codec.groups, 3, 5) and codes.dtype == np.int32
    width = CHANNELS // codec.groups
    for n, g, y, x in np.ndindex(codes.shape):
        stripe = z[n, g * width : (g + 1) * width, y, x].astype(float)
        coded = slice(g * width, (g + 1) * width)
        weight = t["significance"][t["order"]][coded] if codec.weighted else 1
        distance = (weight * (t["codebook"][:, coded] - stripe) ** 2).sum(axis=1)
        assert distance[codes[n, g, y, x]] <= distance.min() + 1e-5


@each_codec
def test_decoding_looks_codewords_up(codec):
    t = tables(codec)
    codes = np.random.default_rng(2).integers(0, codec.words, (2, codec.groups, 2, 3), dtype=np.int32)
    decoded = codec.dequantize({"codes": codes}, t)
    assert decoded.shape == (2, CHANNELS, 2, 3) and decoded.dtype == np.float32 and decoded.flags.c_contiguous
    width = CHANNELS // codec.groups
    for n, c, y, x in np.ndindex(decoded.shape):
        assert decoded[n, c, y, x] == t["codebook"][codes[n, c // width, y, x], c]


@each_codec
def test_codewords_code_as_themselves(codec):
    book = 10 * np.random.default_rng(0).normal(size=(codec.words, CHANNELS)).astype(np.float32)
    t = dict(tables(codec), codebook=book)
    z = t["codebook"].reshape(codec.words, CHANNELS, 1, 1)
    decoded = codec.dequantize(codec.quantize(z, t), t)
    np.testing.assert_array_equal(decoded, z)


@each_codec
def test_graph_inputs_give_the_same_scores(codec):
    z, t = feature(), tables(codec)
    feeds = codec.table_feeds(t)
    width = CHANNELS // codec.groups
    assert feeds["codebook_weight"].shape == (codec.groups * codec.words, width, 1, 1)
    assert feeds["codebook_bias"].shape == (codec.groups * codec.words,)
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in feeds.values())
    if codec.grouping == "contiguous":
        assert set(feeds) == {"codebook_weight", "codebook_bias"}
    else:
        np.testing.assert_array_equal(feeds["codebook_order"], t["order"])
        np.testing.assert_array_equal(feeds["codebook_order_back"][t["order"]], np.arange(CHANNELS))
    grouped = z.reshape(3, codec.groups, width, 3, 5)
    weight = feeds["codebook_weight"].reshape(codec.groups, codec.words, width)
    score = np.einsum("ngcyx,gkc->ngkyx", grouped, weight) + feeds["codebook_bias"].reshape(codec.groups, -1, 1, 1)
    agree = score.argmin(axis=2) == codec.quantize(z, t)["codes"]
    assert agree.mean() > 0.99


def test_calibration_finds_groups_and_codewords():
    codec = SGQ(groups=3, bits=2)
    rng = np.random.default_rng(0)
    # Three groups of four channels, scattered; the channels of a group take one of four values together.
    labels = rng.permutation(np.repeat(np.arange(3), 4))
    levels = rng.integers(0, 4, (8, 3, 6, 6))
    z = (levels[:, labels] * (1 + np.arange(12)[:, None, None])).astype(np.float32)
    t = codec.calibrate(z, seed=0)
    assert t["codebook"].shape == (4, 12) and t["codebook"].dtype == np.float32
    assert t["order"].dtype == np.int64 and sorted(t["order"]) == list(range(12))
    assert all(len(set(group)) == 1 for group in labels[t["order"]].reshape(3, 4))
    coded = z[:, codec.order(12, t)]
    np.testing.assert_allclose(codec.dequantize(codec.quantize(coded, t), t), coded, atol=1e-4)
    again = codec.calibrate(z, seed=0)
    assert all(np.array_equal(t[name], again[name]) for name in t)


def test_fewer_stripes_than_codewords_calibrate():
    codec = SGQ(groups=2, bits=8)
    z = np.random.default_rng(0).normal(size=(4, 8, 1, 1)).astype(np.float32)
    t = codec.calibrate(z, seed=0)
    coded = z[:, t["order"]]
    np.testing.assert_allclose(codec.dequantize(codec.quantize(coded, t), t), coded, atol=1e-6)


def test_channels_that_do_not_divide_are_refused_with_what_would():
    SGQ(groups=4).check(12)
    with pytest.raises(UsageError) as caught:
        SGQ(groups=8).check(12)
    assert str(caught.value) == (
        "sgq with 8 groups cannot code 12 channels in equal groups: choose --groups from 1, 2, 3, 4, 6, 12"
    )
    with pytest.raises(UsageError):
        SGQ(groups=16).check(8)
    with pytest.raises(UsageError):
        SGQ(groups=8).calibrate(feature(), 0)


@pytest.mark.parametrize(
    "config", [{"groups": 0}, {"groups": -1}, {"bits": 0}, {"bits": 9}, {"groups": 2.0}, {"bits": "4"}, {"bits": None}]
)
def test_an_impossible_configuration_is_refused(config):
    with pytest.raises(UsageError, match="at least 1 group and 1 to 8 bits"):
        SGQ(**config)


def test_a_payload_has_the_papers_size():
    codes = SGQ(groups=4, bits=3).quantize(feature(), tables(SGQ(groups=4, bits=3)))
    assert len(SGQ(groups=4, bits=3).pack(codes)) == -(-4 * 3 * 3 * 3 * 5 // 8)


class TestActive:
    def test_after_a_relu_it_is_where_something_is_decoded(self):
        codec = SGQ(groups=2, bits=2)
        book = np.array([[0, 0, 0, 2], [1, 0, 0.05, 0], [2, 0, 1, 0], [0.1, 0, 0.2, 0]], dtype=np.float32)
        codes = {"codes": np.arange(4, dtype=np.int32)[:, None, None, None].repeat(2, axis=1)}
        expected = [[0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]]
        active = codec.active(codes, {"codebook": book})
        assert active.dtype == np.bool_ and active.reshape(4, 4).astype(int).tolist() == expected

    @each_codec
    def test_negative_features_are_as_active_as_positive_ones(self, codec):
        t = tables(codec)
        codes = codec.quantize(feature(), t)
        turned = {"codebook": -t["codebook"]}
        np.testing.assert_array_equal(codec.active(codes, turned), codec.active(codes, t))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codebook", np.zeros((16, 7), dtype=np.float32)),
        ("codebook", np.full((16, 8), np.nan, dtype=np.float32)),
        ("order", np.zeros(8, dtype=np.int64)),
        ("order", np.arange(8, dtype=np.int32)),
    ],
)
def test_tables_that_are_none(name: str, value: np.ndarray) -> None:
    codec = SGQ(groups=4, bits=4)
    good: Arrays = {"codebook": np.zeros((16, 8), dtype=np.float32), "order": np.arange(8, dtype=np.int64)}
    codec.check_tables(8, good)
    with pytest.raises(ShapeError):
        codec.check_tables(8, {**good, name: value})
