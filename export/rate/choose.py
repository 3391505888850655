"""Rate control: chooses the codec and the dead zone of gradients that keep a goal, by measuring calibration images.

The network stands still while it is measured. When it learns, features and gradients change, and the coder's tables get
better; what its codebooks cost to follow is allowed for (`edgekit.export.rate.candidates.MOVING`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.gradients.dct import DCT
from edgekit.errors import UsageError
from edgekit.export.rate.candidates import ZONES, Bench, Downlink, Uplink
from edgekit.export.rate.rounds import NO_ROUNDS, RoundBytes, RoundPlan

#: Candidates: groups that divide the channels, up to so many, times these bits.
MOST_GROUPS = 16
BITS = (2, 3, 4, 6, 8)
#: The uplink's share of `Goal.target_bytes`.
UPLINK_SHARE = 1 / 3
#: Candidates are not measured if their indices at fixed width take more than so many times the uplink's share.
HOPELESS = 4
#: How often the interval between two of `ZONES` is halved to refine the zone.
HALVINGS = 3


class Goal(NamedTuple):
    """What to keep: `target_bytes` per training image, both directions together, or `max_accuracy_drop`, in points."""

    target_bytes: float | None = None
    max_accuracy_drop: float | None = None
    #: Images of one step, which share a frame.
    batch: int = 32
    #: Told how many candidates are measured, of how many, and which is next.
    on_candidate: Callable[[int, int, str], None] = lambda done, total, name: None
    #: The rounds that `target_bytes` are to hold too; None: there are none, or nobody knows them.
    rounds: RoundPlan | None = None


class Rate(NamedTuple):
    """What was chosen, and among what."""

    codec: SGQ
    gradient: str
    #: JSON values only: goal, choice, and every candidate with its measures.
    record: dict[str, Any]


def candidates(codec: SGQ, feature: tuple[int, ...]) -> list[SGQ]:
    """`codec` with other groups and bits, fewest bits first, for a feature (C,h,w)."""
    groups = [g for g in range(1, min(MOST_GROUPS, feature[0]) + 1) if feature[0] % g == 0]
    every = [type(codec)(**{**codec.config, "groups": g, "bits": b}) for g in groups for b in BITS]
    return sorted(every, key=lambda each: (each.formula_bits(feature), each.groups))


def choose(
    codec: FeatureCodec,
    goal: Goal,
    bench: Bench,
    rounds: RoundBytes = NO_ROUNDS,
) -> Rate:
    """`codec` with the groups and bits, and the gradient policy, that keep `goal` for the features of `bench`.

    `target_bytes`, less what `rounds` take: only pairs of an uplink and a zone that fit together count. The uplink,
    updates included, should take at most `UPLINK_SHARE`, or exceed it least; of those that do, the one of least error
    is taken, with about the smallest zone that fits. Where that is the smallest of `ZONES`, bytes are left over: then
    the uplink of least error that fits with this zone is taken.
    `max_accuracy_drop`: the uplink of fewest bytes is taken whose decoded feature is classified at most so many points
    worse than the feature itself, on the second half of the images; and the zone that `DCT` has by default.
    UsageError when nothing keeps the goal, naming what could be reached.
    """
    if not isinstance(codec, SGQ):
        raise UsageError(f"codec '{codec.codec_id}' has no groups and bits to choose a rate by: take --codec sgq")
    if (goal.target_bytes is None) == (goal.max_accuracy_drop is None):
        raise UsageError("give one of --target-bytes and --max-accuracy-drop")
    shape = bench.first.shape[1:]
    exact = bench.accuracy()
    if goal.max_accuracy_drop is not None:
        _require_trained(exact, len(bench.second), int(bench.labels.max()) + 1)
    every = candidates(codec, shape)
    most = goal.target_bytes - sum(rounds) if goal.target_bytes is not None else np.inf
    if most <= 0:
        raise UsageError(
            f"--target-bytes {goal.target_bytes:g}: rounds alone take {sum(rounds):.0f} B an image: take a coarser "
            "--update-codec, or fewer rounds, --sync-every 4epochs"
        )
    share = UPLINK_SHARE * most
    worth = [each for each in every if each.formula_bits(shape) / 8 <= HOPELESS * share] or every[:1]
    ups = []
    for done, each in enumerate(worth):
        goal.on_candidate(done, len(worth) + 1, f"{each.groups} groups, {each.bits} bits")
        ups.append(bench.uplink(each))
    ups.sort(key=lambda up: (up.total, up.error))
    goal.on_candidate(len(worth), len(worth) + 1, "gradients")
    if goal.target_bytes is not None:
        up, down, downs = _within(goal.target_bytes, sum(rounds), share, ups, bench)
    else:
        up, down, downs = _accurate(exact, goal.max_accuracy_drop, ups, bench)
    record = {
        "goal": {"max_accuracy_drop": goal.max_accuracy_drop}
        if goal.target_bytes is None
        else {"target_bytes": goal.target_bytes},
        "batch": goal.batch,
        "images": len(bench.second),
        "accuracy": exact,
        "bytes": up.total + down.bytes + sum(rounds),
        "rounds": rounds._asdict(),
        "groups": up.groups,
        "bits": up.bits,
        "gradient": down.policy,
        "not_measured": len(every) - len(worth),
        "uplinks": [each._asdict() | {"downlinks": [d._asdict() for d in downs.get(each, [])]} for each in ups],
    }
    chosen = type(codec)(**{**codec.config, "groups": up.groups, "bits": up.bits})
    return Rate(chosen, down.policy, record)


Choice = tuple[Uplink, Downlink, dict[Uplink, list[Downlink]]]


def _within(target: float, rounds: float, share: float, ups: list[Uplink], bench: Bench) -> Choice:
    most = target - rounds
    best: list[Uplink] = []
    for up in ups:  # by bytes: what costs more and is no better is never chosen
        if not best or (up.error < best[-1].error and up.total < most):
            best.append(up)
    downs = {up: bench.downlinks(up) for up in best}

    def total(pair: tuple[Uplink, Downlink]) -> float:
        return pair[0].total + pair[1].bytes

    pairs = [(up, down) for up in best for down in downs[up]]
    fitting = [pair for pair in pairs if total(pair) <= most]
    if not fitting:
        up, down = min(pairs, key=total)
        raise UsageError(
            f"--target-bytes {target:g}: the least is {total((up, down)) + rounds:.0f} B an image, with {up.groups} "
            f"groups, {up.bits} bits and {down.policy} in batches of {bench.batch}"
            + (f", {rounds:.0f} B of them for rounds" if rounds else "")
            + "; a later cut or larger batches take less"
        )
    up, down = min(fitting, key=lambda p: (max(p[0].total - share, 0), p[0].error, p[1].zone))
    if down.zone == ZONES[0]:
        up, down = min((p for p in fitting if p[1].zone == ZONES[0]), key=lambda p: p[0].error)
        return up, down, downs
    for _ in range(HALVINGS):
        smaller = max(each.zone for each in downs[up] if each.zone < down.zone)
        between = round((down.zone + smaller) / 2, 3)
        (finer,) = bench.downlinks(up, [between])
        downs[up] = sorted({*downs[up], finer}, key=lambda each: each.zone)
        down = finer if total((up, finer)) <= most else down
    return up, down, downs


def _accurate(exact: float | None, drop: float | None, ups: list[Uplink], bench: Bench) -> Choice:
    assert exact is not None and drop is not None
    reached = max(up.accuracy or 0.0 for up in ups)
    # Counts of images, so that 0.1 points are not lost to rounding.
    good = [up for up in ups if up.accuracy is not None and exact - up.accuracy <= drop + 1e-9]
    if not good:
        raise UsageError(
            f"--max-accuracy-drop {drop:g}: the best candidate loses {exact - reached:.2f} points of {exact:.2f} % on "
            f"{len(bench.second)} images, before any training with it, which closes part of the gap"
        )
    downs = bench.downlinks(good[0])
    (down,) = [each for each in downs if each.zone == DCT().zone]
    return good[0], down, {good[0]: downs}


def _require_trained(accuracy: float | None, images: int, classes: int) -> None:
    chance = 1 / classes
    by_luck = 100 * (chance + 3 * (chance * (1 - chance) / images) ** 0.5)
    if accuracy is None or accuracy <= by_luck:
        is_so = "its weights are fresh" if accuracy is None else f"it has {accuracy:.1f} % of {images} images right"
        raise UsageError(
            f"--max-accuracy-drop needs a trained network, and {is_so}: give --weights FILE, or take --target-bytes"
        )
