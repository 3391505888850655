import copy
import math

import numpy as np
import pytest
import torch

from edgekit.server.look import look_at
from edgekit.server.watch import ALL_STRIKES, CONVICTED, RUINED_STEPS, STRIKES, Watch
from tests.server.sights import front, noise, sights

GUESSING = math.log(10)
#: Labels of a batch of 20 images.
EVEN = np.arange(20) % 10


def fleet(peers: int, batches: int = 3) -> Watch:
    """A watch that has seen healthy batches of devices "0", "1" and so on."""
    watch = Watch(10, golden_size=1.0)
    for step in range(batches):
        for peer in range(peers):
            assert watch.look(str(peer), look_at(sights(16, 100 * peer + step)), 1000) is None
    return watch


def test_healthy_devices_are_left_alone() -> None:
    for peers in (1, 2, 5):
        watch = fleet(peers, 20)
        assert not any(watch.warning(str(peer)) or watch.verdict(str(peer)) for peer in range(peers))


@pytest.mark.parametrize("peers", [0, 1, 3])
@pytest.mark.parametrize(
    ("kind", "told"),
    [("nan", "not finite"), ("black", "all 16 images are the same"), ("noise", "noise"), ("large", "is usual")],
)
def test_a_bad_batch_is_left_out_at_once_and_the_device_quarantined_after_a_few(
    kind: str, told: str, peers: int
) -> None:
    watch = fleet(peers)
    if kind == "noise" and not peers:
        # Some networks make of images what others make of noise: only other devices tell.
        assert watch.look("bad", look_at(bad(kind, 0)), 1000) is None
        return
    for step in range(STRIKES):
        assert watch.verdict("bad") is None
        why = watch.look("bad", look_at(bad(kind, step)), 1000)
        assert why is not None and told in why
        if step < STRIKES - 1:
            assert told in (watch.warning("bad") or "")
    assert told in (watch.verdict("bad") or "") and watch.warning("bad") is None
    for peer in range(max(1, peers)):
        assert watch.look(str(peer), look_at(sights(16, 999)), 1000) is None, "the others are judged as before"


def bad(kind: str, step: int) -> torch.Tensor:
    if kind == "nan":
        return sights(16, step) * math.nan
    if kind == "black":
        with torch.no_grad():
            feature: torch.Tensor = front()(torch.full((16, 1, 16, 16), -1.0))
            return feature
    return noise(16, step) if kind == "noise" else sights(16, step) * 100


def test_a_good_batch_ends_the_row_of_bad_ones() -> None:
    watch = fleet(2)
    for step in range(3 * STRIKES):
        last = step % STRIKES == STRIKES - 1
        why = watch.look("flickers", look_at(sights(16, 7000 + step) if last else bad("black", step)), 1000)
        assert (why is None) == last
    assert watch.verdict("flickers") is None and watch.warning("flickers") is None


def test_the_same_batch_again_is_left_out_unless_it_is_the_whole_share() -> None:
    watch = fleet(2)
    same = sights(16, 5)
    for step in range(STRIKES + 1):
        why = watch.look("stuck", look_at(same * (1 + 0.05 * step)), 257)
        assert (why is None) == (step == 0)
        assert watch.look("small", look_at(same), 20) is None
    assert "the same 16 images" in (watch.verdict("stuck") or "") and watch.verdict("small") is None


def test_one_class_and_few_images_are_no_crime() -> None:
    watch, rng = fleet(3), np.random.default_rng(0)
    share = sights(10, 3)
    for _ in range(20):
        assert watch.look("few", look_at(share[torch.from_numpy(rng.permutation(10))]), 10) is None
        assert watch.look("one image", look_at(share[:1]), 1) is None


@pytest.mark.parametrize("contrast", [0.3, 0.05])
def test_little_contrast_is_no_crime(contrast: float) -> None:
    watch = fleet(3)
    for step in range(10):
        feature = sights(16, step)
        assert watch.look("grey", look_at(feature.mean() + contrast * (feature - feature.mean())), 1000) is None


def test_features_may_grow_while_a_device_learns_alone() -> None:
    watch = Watch(10, golden_size=1.0)
    for step in range(200):
        assert watch.look("alone", look_at(sights(16, step) * 1.03**step), 1000) is None


def test_labels_of_other_images_are_found_by_a_loss_that_stays_while_others_learn() -> None:
    watch, warned, rng = Watch(10), None, np.random.default_rng(0)
    for step in range(60):
        if watch.verdict("bad"):
            break
        loss = max(0.1, 2.6 - 0.08 * step)
        outcomes = {"a": (loss, EVEN), "b": (loss + 0.2, EVEN), "c": (loss, EVEN)}
        watch.learned({**outcomes, "bad": (2.7 + rng.normal() / 5, rng.permutation(EVEN))})
        warned = warned or watch.warning("bad")
    assert step < 45 and "do its labels belong to them" in (watch.verdict("bad") or "")
    assert "that of guessing" in (warned or "")
    assert not any(watch.verdict(name) or watch.warning(name) for name in "abc")


def test_of_two_devices_the_one_that_learns_is_kept() -> None:
    watch = Watch(10)
    for step in range(80):
        watch.learned({"good": (max(0.5, 2.5 - 0.05 * step), EVEN), "bad": (2.5, EVEN)})
    assert watch.verdict("bad") and not watch.verdict("good") and not watch.warning("good")


def test_who_joins_late_or_has_a_rare_class_may_have_a_large_loss_for_a_while() -> None:
    watch = Watch(10)
    for step in range(100):
        outcomes = {"a": (max(0.1, 2.3 - 0.05 * step), EVEN), "b": (max(0.1, 2.3 - 0.04 * step), EVEN)}
        if step >= 60:
            outcomes["late"] = (6.0 * 0.8 ** (step - 60), EVEN)
        watch.learned(outcomes)
        assert not watch.verdict("late")
    assert watch.warning("late") is None


def test_a_rare_class_is_given_its_time() -> None:
    """Its loss rises first: that its class is rare is learned before anything else."""
    rare, others = np.full(20, 9), np.arange(20) % 9
    accused = Watch(10)
    for step in range(40):
        loss = max(0.3, 2.3 - 0.05 * step)
        accused.learned(dict.fromkeys("abcdefg", (loss, others)) | {"rare": (2.5, np.full(5, 9))})
    assert (accused.records["rare"].guessing or 0.0) > 3 and accused.warning("rare") is None
    for _ in range(100):
        accused.learned(dict.fromkeys("abcdefg", (0.3, others)) | {"rare": (4.0, np.full(5, 9))})
    assert accused.verdict("rare"), "but not for ever"
    fewer, more = Watch(10), Watch(10)
    for watch, count in ((fewer, 5), (more, 20)):
        for _ in range(20):
            watch.learned({"a": (0.3, others), "b": (0.3, others), "rare": (4.0, rare[:count])})
    assert fewer.records["rare"].evidence < 0.5 * more.records["rare"].evidence


def test_a_run_in_which_nobody_learns_accuses_nobody() -> None:
    watch, rng = Watch(10), np.random.default_rng(0)
    for _ in range(300):
        watch.learned({name: (GUESSING + rng.normal() / 10, EVEN) for name in "abcd"})
    assert not any(watch.verdict(name) for name in "abcd") and watch.diverged() is None


def test_a_run_is_lost_when_its_loss_stays_far_above_guessing() -> None:
    watch = Watch(10)
    for _ in range(2 * RUINED_STEPS):
        watch.learned({"a": (0.1, EVEN)})
    steps = 0
    while watch.diverged() is None and steps < 200:
        watch.learned({"a": (9.0, EVEN), "b": (5.0, np.tile(EVEN, 3))})
        steps += 1
    assert RUINED_STEPS < steps < RUINED_STEPS + 40
    assert "lower --lr" in (watch.diverged() or "")
    for _ in range(30):
        watch.learned({"a": (1.0, EVEN)})
    assert watch.diverged() is None


def test_images_weigh_in_the_loss_of_the_run() -> None:
    watch = Watch(10)
    watch.learned({"a": (10.0, np.tile(EVEN, 3)), "b": (0.0, EVEN)})
    assert watch.loss == pytest.approx(7.5)


def test_forgotten_devices_are_no_peers_and_a_verdict_stays() -> None:
    watch = Watch(10)
    for _ in range(60):
        watch.learned({"good": (0.2, EVEN), "bad": (2.6, EVEN)})
    watch.forget("good")
    watch.forget("bad")
    watch.forget("never seen")
    assert watch.verdict("bad") and "good" not in watch.records
    for _ in range(60):
        watch.learned({"next": (3.0, EVEN)})
    assert watch.records["next"].evidence == 0


def test_a_copy_goes_on_as_the_original() -> None:
    watch = fleet(3)
    other = copy.deepcopy(watch)
    for each in (watch, other):
        each.look("bad", look_at(noise(16, 0)), 1000)
        each.learned({"0": (1.0, EVEN), "bad": (3.0, EVEN)})
    assert repr(watch) == repr(other)
    other.learned({"0": (1.0, EVEN), "bad": (3.0, EVEN)})
    assert watch.records["bad"].evidence < other.records["bad"].evidence < CONVICTED


def test_where_front_halves_are_not_averaged_losses_only_warn() -> None:
    for in_step in (True, False):
        watch, labels = Watch(10, in_step=in_step), np.arange(10)
        for _ in range(60):
            watch.learned(dict.fromkeys("abc", (0.5, labels)) | {"odd": (6.0, labels)})
        assert (watch.verdict("odd") is not None) == in_step
        assert in_step or "labels" in (watch.warning("odd") or "")


def test_where_nobody_learns_nobody_is_to_blame() -> None:
    watch, labels = Watch(10), np.arange(10)
    for _ in range(40):
        watch.learned({"a": (40.0, labels), "b": (37.0, labels)})
    assert watch.verdict("a") is None and watch.verdict("b") is None


def test_when_all_stand_out_the_run_is_lost_and_no_device_blamed() -> None:
    watch = Watch(10)
    for step in range(ALL_STRIKES):
        assert watch.diverged() is None
        for name in "ab":
            assert watch.look(name, look_at(bad("black", step)), 1000) is not None
    assert "training diverged" in (watch.diverged() or "")
    assert watch.verdict("a") is None
