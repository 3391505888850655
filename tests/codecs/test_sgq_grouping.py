"""sgq: which channels share a group, and channels that matter more."""

import numpy as np
import pytest

from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.grouping import channel_order
from edgekit.errors import ShapeError, UsageError

CHANNELS = 12


def feature(n=3, seed=0):
    """A feature after a ReLU."""
    return np.maximum(np.random.default_rng(seed).normal(size=(n, CHANNELS, 3, 5)), 0).astype(np.float32)


def tables(codec, seed=1):
    rng = np.random.default_rng(seed)
    book = np.maximum(rng.normal(size=(codec.words, CHANNELS)), 0).astype(np.float32)
    return {
        "codebook": book,
        "order": rng.permutation(CHANNELS),
        "significance": rng.uniform(0.1, 4, CHANNELS).astype("f4"),
    }


class TestGrouping:
    """What decides the order of channels."""

    SIGNIFICANCE = np.array([5, 1, 9, 2, 8, 3, 7, 4, 6, 0, 11, 10], dtype=np.float32)

    def test_contiguous_is_the_networks_order(self):
        t = SGQ(groups=3, bits=2, grouping="contiguous").calibrate(feature(), seed=0)
        np.testing.assert_array_equal(t["order"], np.arange(CHANNELS))

    def test_significance_is_falling(self):
        codec = SGQ(groups=3, bits=2, grouping="significance")
        t = codec.calibrate(feature(), 0, self.SIGNIFICANCE)
        assert self.SIGNIFICANCE[t["order"]].tolist() == sorted(self.SIGNIFICANCE, reverse=True)
        assert set(t) == {"order", "codebook"}

    @pytest.mark.parametrize("config", [{"grouping": "significance"}, {"weighted": True}])
    def test_what_needs_a_significance_says_so(self, config):
        codec = SGQ(groups=3, **config)
        assert codec.needs_significance and not SGQ(groups=3).needs_significance
        with pytest.raises(UsageError, match="needs the significance of every channel"):
            codec.calibrate(feature(), 0)

    @pytest.mark.parametrize("grouping", ["spectrum", 3, None])
    def test_an_unknown_grouping_is_refused(self, grouping):
        with pytest.raises(UsageError, match="there are: spectral, contiguous, significance"):
            SGQ(grouping=grouping)
        with pytest.raises(UsageError, match="True or False, got 1"):
            SGQ(weighted=1)  # type: ignore[arg-type]

    def test_the_configuration_of_old_bundles_stays(self):
        assert SGQ(4, 6).config == {"groups": 4, "bits": 6}
        assert SGQ(weighted=True, grouping="contiguous").config == {
            "groups": 8, "bits": 4, "grouping": "contiguous", "weighted": True,
        }  # fmt: skip


class TestWeighted:
    CODEC = SGQ(groups=3, bits=3, weighted=True)

    def error(self, codec, t, z, weight):
        coded = z[:, t["order"]]
        decoded = codec.dequantize(codec.quantize(coded, t), t)
        return float((((decoded - coded) ** 2).mean(axis=(0, 2, 3)) * weight[t["order"]]).sum())

    def test_it_codes_better_what_matters_more(self):
        weight = np.where(np.arange(CHANNELS) % 3, 0.1, 4).astype(np.float32)
        z = feature(n=24)
        plain = SGQ(groups=3, bits=3)
        weighted, even = (codec.calibrate(z, 0, weight) for codec in (self.CODEC, plain))
        assert self.error(self.CODEC, weighted, z, weight) < 0.8 * self.error(plain, even, z, weight)
        ones = np.ones(CHANNELS, np.float32)
        assert self.error(self.CODEC, weighted, z, ones) > self.error(plain, even, z, ones)

    def test_equal_weights_are_no_weights(self):
        z = feature(n=8)
        weighted = self.CODEC.calibrate(z, 0, np.full(CHANNELS, 7, np.float32))
        plain = SGQ(groups=3, bits=3).calibrate(z, 0)
        np.testing.assert_array_equal(weighted["significance"], 1)
        np.testing.assert_array_equal(weighted["codebook"], plain["codebook"])

    def test_no_channel_is_lost(self):
        one = np.eye(CHANNELS, dtype=np.float32)[3]
        for significance in (one, 0 * one):
            t = self.CODEC.calibrate(feature(), 0, significance)
            assert (t["significance"] > 0).all() and np.isfinite(t["codebook"]).all()
            self.CODEC.check_tables(CHANNELS, t)

    @pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
    def test_weights_that_are_none(self, value):
        t = tables(self.CODEC)
        self.CODEC.check_tables(CHANNELS, t)
        with pytest.raises(ShapeError, match="significance must be finite and above zero"):
            self.CODEC.check_tables(CHANNELS, dict(t, significance=np.full(CHANNELS, value, np.float32)))
        with pytest.raises(ShapeError):
            self.CODEC.check_tables(CHANNELS, {"codebook": t["codebook"], "order": t["order"]})


def test_regrouping_by_a_significance_that_is_not_given_is_refused() -> None:
    with pytest.raises(UsageError, match="needs the significance of every channel"):
        channel_order("significance", feature(), 3, None, np.random.default_rng(0))
