"""OnlineCodebook: it follows the features, revives the dead, and keeps both sides equal."""

import numpy as np
import pytest

from edgekit.codecs.codebook import DEAD, WORTH, OnlineCodebook
from edgekit.codecs.features.sgq import SGQ

pytestmark = pytest.mark.usefixtures("coder")
CODEC = SGQ(groups=2, bits=3)


def features(shift=0.0, seed=0, n=8):
    """(n,8,4,4) f32: two groups of four channels, each around eight corners that lie at `shift`."""
    corners = np.random.default_rng(99).normal(size=(2, 8, 4))
    rng = np.random.default_rng(seed)
    picked = corners[np.arange(2)[:, None], rng.integers(0, 8, (n * 16, 2)).T]  # (2, n*16, 4)
    stripes = picked + shift + 0.05 * rng.normal(size=picked.shape)
    return stripes.transpose(1, 0, 2).reshape(n, 4, 4, 8).transpose(0, 3, 1, 2).astype(np.float32)


def calibrated():
    return CODEC.calibrate(features(n=32), seed=0)


def error(tables, z):
    """Mean squared error of `z` coded with `tables`, over its variance."""
    coded = z[:, tables["order"]]
    decoded = CODEC.dequantize(CODEC.quantize(coded, tables), tables)
    return float(((decoded - coded) ** 2).mean() / coded.var())


def follow(online, z):
    """One training step's worth; the bytes for the other side."""
    coded = z[:, online.tables["order"]]
    online.update(coded, CODEC.quantize(coded, online.tables)["codes"])
    return online.publish()


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_it_follows_features_that_drift_where_a_frozen_book_does_not(tolerance):
    frozen = calibrated()
    online = OnlineCodebook(CODEC, calibrated(), decay=0.8, tolerance=tolerance, seed=0)
    for step in range(60):
        follow(online, features(shift=3 * step / 60, seed=step))
    last = features(shift=3.0, seed=1000)
    assert error(frozen, last) > 0.2
    assert error(online.tables, last) < 0.1 * error(frozen, last)
    assert online.health()["distortion"] < 0.2  # as seen on the way, a step behind the drift


def test_it_stays_put_where_nothing_moves():
    online = OnlineCodebook(CODEC, calibrated(), decay=0.9, tolerance=0.1, seed=0)
    sent = [follow(online, features(seed=step)) for step in range(20)]
    assert sum(map(len, sent)) < 100
    assert error(online.tables, features(seed=50)) < 1.2 * error(calibrated(), features(seed=50)) + 1e-3


def test_publishing_brings_a_peer_to_exactly_the_same_tables():
    online = OnlineCodebook(CODEC, calibrated(), decay=0.8, tolerance=0.05, seed=0)
    peer, versions = calibrated(), 0
    for step in range(40):
        payload = follow(online, features(shift=step / 20, seed=step))
        if payload:
            peer = CODEC.patch(peer, payload)
            versions += 1
        assert online.version == versions
        for name in ("codebook", "order"):
            assert online.tables[name].tobytes() == peer[name].tobytes()
    assert versions > 3


def test_before_publishing_the_tables_stay_those_the_peer_has():
    tables = calibrated()
    online = OnlineCodebook(CODEC, tables, decay=0.5, tolerance=0.0, seed=0)
    before = {name: array.copy() for name, array in tables.items()}
    z = features(shift=2.0)[:, tables["order"]]
    online.update(z, CODEC.quantize(z, tables)["codes"])
    assert online.version == 0
    assert online.tables is tables and all(np.array_equal(tables[name], before[name]) for name in before)
    assert online.publish() and online.version == 1
    assert all(np.array_equal(tables[name], before[name]) for name in before)


def test_a_huge_tolerance_publishes_nothing():
    online = OnlineCodebook(CODEC, calibrated(), decay=0.5, tolerance=1e6, seed=0)
    assert all(follow(online, features(shift=step, seed=step)) == b"" for step in range(5))
    assert online.version == 0


class TestWorth:
    """Nothing is sent before it saves a part of the distortion."""

    @staticmethod
    def online(tolerance=0.1):
        """One group of two codewords at 0 and 10, whose spread is 5."""
        codec = SGQ(groups=1, bits=1)
        tables = {"codebook": np.array([[0.0], [10.0]], np.float32), "order": np.array([0])}
        return OnlineCodebook(codec, tables, decay=0.9, tolerance=tolerance, seed=0)

    def follow(self, online, points):
        z = np.array(points, np.float32).reshape(1, 1, 1, -1)
        online.update(z, online.codec.quantize(z, online.tables)["codes"])
        return online.publish()

    def test_by_hand(self):
        online = self.online()
        assert online.behind == 0
        z = np.array([1, 1, 10, 10], np.float32).reshape(1, 1, 2, 2)
        online.update(z, online.codec.quantize(z, online.tables)["codes"])
        # Both codewords are used alike; the first is at 0.1 now, of a variance of 4.95 squared.
        assert online.behind == pytest.approx(0.5 * 0.1**2 / 4.95**2, rel=1e-4)

    def test_small_moves_wait_until_they_are_worth_it(self):
        online, behind = self.online(), []
        while not self.follow(online, [2, 2, 10, 10]):
            behind.append(online.behind)
        assert len(behind) >= 2 and max(behind) <= WORTH * 0.1**2
        assert online.version == 1 and online.tables["codebook"][0, 0] > 0

    def test_a_codeword_of_little_use_waits_longer(self):
        def batches(points):
            online, n = self.online(), 1
            while not self.follow(online, points):
                n += 1
            return n

        assert batches([2] * 15 + [10]) < batches([2] + [10] * 15)

    def test_codewords_that_are_no_numbers_are_not_sent(self):
        online = self.online()
        with np.errstate(invalid="ignore"):
            z = np.full((1, 1, 1, 4), np.nan, np.float32)
            online.update(z, np.zeros((1, 1, 1, 4), np.int32))
        assert online.publish() == b"" and online.version == 0


def test_dead_codewords_are_revived():
    tables = calibrated()
    tables["codebook"][1:] = 1e4  # one codeword does all the work, the others are far away
    online = OnlineCodebook(CODEC, tables, decay=0.8, tolerance=0.1, seed=0)
    start = error(tables, features())
    perplexity = []
    for step in range(60):
        follow(online, features(seed=step))
        perplexity.append(online.health()["perplexity"])
    used = CODEC.quantize(features(seed=99)[:, online.tables["order"]], online.tables)["codes"]
    assert all(len(np.unique(used[:, g])) >= 6 for g in range(2))
    assert error(online.tables, features(seed=99)) < 0.1 * start
    assert min(perplexity) < 2 and perplexity[-1] > 4


def test_one_step_by_hand():
    codec = SGQ(groups=1, bits=1)
    tables = {"codebook": np.array([[0.0], [10.0]], np.float32), "order": np.array([0])}
    online = OnlineCodebook(codec, tables, decay=0.75, tolerance=0.0, seed=0)
    z = np.array([2, 2, 2, 6], np.float32).reshape(1, 1, 2, 2)
    codes = codec.quantize(z, tables)["codes"]
    assert codes.reshape(-1).tolist() == [0, 0, 0, 1]
    online.update(z, codes)
    # Per codeword: count .75 + .25 * 2 * share, sum .75 * e + .25 * 2 * mean of its part.
    first = (0.75 * 0 + 0.25 * 2 * 6 / 4) / (0.75 + 0.25 * 2 * 3 / 4)
    second = (0.75 * 10 + 0.25 * 2 * 6 / 4) / (0.75 + 0.25 * 2 * 1 / 4)
    online.publish()
    np.testing.assert_allclose(online.tables["codebook"].reshape(-1), [first, second], rtol=1e-3)
    assert online.health() == {
        "perplexity": pytest.approx(np.exp(-sum(p * np.log(p) for p in (1.125 / 2, 0.875 / 2))), rel=1e-5),
        "dead_codewords": 0,
        "distortion": pytest.approx((3 * 4 + 16) / (3 * 1 + 9)),
        "version": 1,
        "regrouped": 0,
        "groups": {
            "usage": [1.0],
            "perplexity": [pytest.approx(np.exp(-sum(p * np.log(p) for p in (1.125 / 2, 0.875 / 2))), rel=1e-5)],
            "dead_codewords": [0],
            "distortion": [pytest.approx((3 * 4 + 16) / (3 * 1 + 9))],
        },
    }


def test_features_that_die_and_come_back_are_followed():
    """A thousand batches of zeros code perfectly: nothing to revive with, and the counts of what is unused vanish."""
    tables = calibrated()
    tables["codebook"][0] = 0
    online = OnlineCodebook(CODEC, tables, decay=0.8, tolerance=0.1, seed=0)
    for _ in range(1000):
        follow(online, np.zeros((1, 8, 2, 2), np.float32))
    # What is not used stays where it was.
    np.testing.assert_allclose(online._books[:, 1:], CODEC.books(tables["codebook"])[:, 1:], rtol=1e-3)
    assert online.version == 0
    assert online.health()["perplexity"] == pytest.approx(1, abs=0.01)
    for step in range(60):
        follow(online, features(seed=step))
    assert error(online.tables, features(seed=99)) < 0.15


def test_the_seed_decides():
    def run(seed):
        tables = calibrated()
        tables["codebook"][1:] = 1e4
        online = OnlineCodebook(CODEC, tables, decay=0.5, tolerance=0.0, seed=seed)
        for step in range(10):
            follow(online, features(seed=step))
        return online.tables["codebook"]

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_health_is_told_per_group():
    tables = calibrated()
    tables["codebook"][1:, :4] = 1e4  # in the first group one codeword does all the work
    online = OnlineCodebook(CODEC, tables, decay=0.5, tolerance=1e6, seed=0)
    z = features()[:, tables["order"]]
    online.update(z, CODEC.quantize(z, tables)["codes"])
    health = online.health()
    groups = health["groups"]
    assert all(len(values) == 2 for values in groups.values())
    assert groups["distortion"][0] > 1 > groups["distortion"][1]
    assert groups["perplexity"][0] < groups["perplexity"][1] and groups["usage"] == [1, 1]
    assert health["dead_codewords"] == sum(groups["dead_codewords"])
    for name in ("perplexity", "distortion"):
        assert health[name] == pytest.approx(np.mean(groups[name]))


class TestRegroup:
    """Channels that move together change; the groups follow, on both sides."""

    @staticmethod
    def moved(seed, n=16):
        """The features of `features`, channels shuffled across groups."""
        return features(seed=seed, n=n)[:, [0, 4, 1, 5, 2, 6, 3, 7]]

    def regrouped(self, codec=CODEC, significance=None):
        tables = codec.calibrate(features(n=32), 0, significance)
        online = OnlineCodebook(codec, tables, decay=0.8, tolerance=0.1, seed=0)
        return tables, online

    def test_it_codes_the_new_features_as_well_as_a_fresh_calibration(self):
        tables, online = self.regrouped()
        z = self.moved(1)
        assert online.regroup(z[:, tables["order"]])
        assert online.tables is tables and online.version == 0
        payload = online.publish()
        assert online.version == online.regrouped == online.health()["regrouped"] == 1
        last = self.moved(2)
        fresh = CODEC.calibrate(self.moved(3, n=32), seed=0)
        assert error(tables, last) > 0.1 > error(online.tables, last)
        assert error(online.tables, last) < 1.5 * error(fresh, last) + 0.01
        peer = CODEC.patch(tables, payload)
        for name in ("codebook", "order"):
            assert online.tables[name].tobytes() == peer[name].tobytes()

    def test_it_goes_on_following_afterwards(self):
        tables, online = self.regrouped()
        online.regroup(self.moved(1)[:, tables["order"]])
        peer = CODEC.patch(tables, online.publish())
        for step in range(30):
            z = (self.moved(step, n=8) + np.float32(step / 20))[:, online.tables["order"]]
            online.update(z, CODEC.quantize(z, online.tables)["codes"])
            payload = online.publish()
            peer = CODEC.patch(peer, payload) if payload else peer
        assert all(np.array_equal(peer[name], online.tables[name]) for name in peer)
        assert error(online.tables, self.moved(99) + np.float32(1.5)) < 0.2

    def test_the_same_groups_are_left_as_they_are(self):
        tables, online = self.regrouped()
        assert not online.regroup(features(seed=5, n=16)[:, tables["order"]])
        assert online.publish() == b"" and online.regrouped == 0

    def test_what_hardly_gains_is_left_as_it_is(self):
        noise = np.random.default_rng(0).normal(size=(64, 8, 4, 4)).astype(np.float32)
        tables = CODEC.calibrate(noise[:32], seed=0)
        online = OnlineCodebook(CODEC, tables, decay=0.8, tolerance=0.1, seed=0)
        same = {True: 0, False: 0}
        for seed in range(8):
            z = noise[32:] + 0.2 * np.random.default_rng(seed).normal(size=(32, 8, 4, 4)).astype(np.float32)
            same[online.regroup(np.ascontiguousarray(np.concatenate([z, noise[:32]])[:, tables["order"]]))] += 1
        assert same[False] > 0

    def test_significance_decides_where_the_codec_groups_by_it(self):
        codec = SGQ(groups=2, bits=3, grouping="significance")
        falling = np.arange(8, 0, -1).astype(np.float32)
        tables, online = self.regrouped(codec, falling)
        coded = features(seed=1)[:, tables["order"]]
        assert not online.regroup(coded, falling)
        assert online.regroup(coded, falling[[0, 4, 1, 5, 2, 6, 3, 7]])
        peer = codec.patch(tables, online.publish())
        assert set(peer["order"][:4]) == {0, 2, 4, 6}

    def test_contiguous_groups_stay(self):
        codec = SGQ(groups=2, bits=3, grouping="contiguous")
        _, online = self.regrouped(codec)
        assert not online.regroup(self.moved(1))

    def test_weights_of_channels_stay_with_their_channels(self):
        codec = SGQ(groups=2, bits=3, weighted=True)
        weights = np.linspace(0.2, 1.8, 8).astype(np.float32)
        tables, online = self.regrouped(codec, weights)
        assert online.regroup(self.moved(1)[:, tables["order"]])
        peer = codec.patch(tables, online.publish())
        np.testing.assert_array_equal(peer["significance"], tables["significance"])
        z = self.moved(2)[:, peer["order"]]
        decoded = codec.dequantize(codec.quantize(z, peer), peer)
        assert ((decoded - z) ** 2).mean() < 0.15 * z.var()


def test_dead_is_far_below_an_even_split():
    assert 0 < DEAD < 0.1


class TestMissing:
    """The share of the variance that quantising took."""

    def told(self, z, codes):
        book = OnlineCodebook(CODEC, calibrated(), 0.9, 0.1, 0)
        book.update(z, codes)
        return book.missing

    def test_nothing_is_known_at_first(self):
        assert OnlineCodebook(CODEC, calibrated(), 0.9, 0.1, 0).missing == 0

    def test_it_is_the_mean_over_groups(self):
        tables = calibrated()
        coded = features(seed=3)[:, tables["order"]] + 0.3 * features(seed=4)
        # One group that is coded worse, and has more energy: it counts as much as the other.
        coded[:, 4:] += np.random.default_rng(0).normal(size=coded[:, 4:].shape).astype(np.float32)
        codes = CODEC.quantize(coded, tables)
        squares = (coded - CODEC.dequantize(codes, tables)) ** 2
        shares = [
            squares[:, part].mean() / coded[:, part].var(axis=(0, 2, 3)).mean() for part in (slice(4), slice(4, 8))
        ]
        assert shares[1] > 1.5 * shares[0]
        assert self.told(coded, codes["codes"]) == pytest.approx(np.mean(shares), abs=0.006)

    def test_a_group_that_is_still_does_not_count_for_more_than_its_part(self):
        tables = calibrated()
        coded = features(seed=3)[:, tables["order"]]
        codes = CODEC.quantize(coded, tables)["codes"]
        before = self.told(coded, codes)
        coded[:, :4] = 1e-3 * coded[:, :4] + 9
        assert self.told(coded, codes) == pytest.approx((before + 1) / 2, abs=0.1) and before < 0.1

    @pytest.mark.parametrize("wrong", [1e6, np.nan])
    def test_it_is_all_where_nothing_fits(self, wrong):
        coded = features(seed=3)
        codes = CODEC.quantize(coded, calibrated())["codes"]
        assert self.told(coded * np.float32(wrong), codes) == 1
