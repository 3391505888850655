"""Algorithm 1, lines 12 to 19: scales are kept only where they help, and their rate follows its schedule."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from torch import nn

from edgekit.federate import scaling as under_test
from edgekit.federate.apart import SCALE
from edgekit.federate.data import Batch, Data
from edgekit.federate.network import Network
from edgekit.federate.scaling import Place, learning_rates, train_scales
from edgekit.federate.settings import Local, Scaling
from edgekit.federate.training import Score, augmentation, evaluate, learn, optimizer

Make = Callable[[], nn.Module]
LOCAL = Local(batch=20)


def trained(network: Make, data: Data) -> tuple[Network, Data, Data]:
    """A network whose weights have learned a little, and the two parts of the images."""
    train, validation = data.split(0.2, 0)
    scaled = Network(network(), scaled=())
    rng = np.random.default_rng(0)
    for _ in range(3):
        batches = train.shuffled(20, rng, augmentation(LOCAL))
        learn(scaled, batches, optimizer("sgd", scaled.learn_weights(), 0.9, 0.0), [0.05] * 8, "float32")
    return scaled, train, validation


def test_scales_that_help_are_kept(network: Make, data: Data) -> None:
    scaled, train, validation = trained(network, data)
    weights = scaled.weights
    told = Scaling(epochs=3, lr=0.02, schedule="none")
    kept, before, best = train_scales(scaled, train, validation, LOCAL, told, Place(0, 1), np.random.default_rng(0))
    assert set(kept) == {name for name in weights if name.endswith(SCALE)}
    assert best.better(before)
    # What was kept is what was tested.
    scaled.set({**weights, **kept})
    assert evaluate(scaled, validation) == best
    scaled.set(weights)
    assert evaluate(scaled, validation) == before


def test_scales_that_do_not_help_are_lost(network: Make, data: Data) -> None:
    scaled, train, validation = trained(network, data)
    told = Scaling(epochs=2, lr=30.0, schedule="none")
    kept, before, best = train_scales(scaled, train, validation, LOCAL, told, Place(0, 1), np.random.default_rng(0))
    assert kept == {} and best == before
    # A rate of 0: as good as before is not better.
    told = Scaling(epochs=2, lr=0.0)
    kept, _, _ = train_scales(scaled, train, validation, LOCAL, told, Place(0, 1), np.random.default_rng(0))
    assert kept == {}


def test_the_best_pass_is_kept_not_the_last(network: Make, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled, train, validation = trained(network, data)
    results = iter([Score(5, 10, 1.0), Score(6, 10, 1.0), Score(6, 10, 0.9), Score(6, 10, 0.95)])
    seen = []

    def scripted(network: Network, data: Data, precision: str) -> Score:
        seen.append(network.scales)
        return next(results)

    monkeypatch.setattr(under_test, "evaluate", scripted)
    told = Scaling(epochs=3, lr=0.01, schedule="none")
    kept, before, best = train_scales(scaled, train, validation, LOCAL, told, Place(0, 1), np.random.default_rng(0))
    assert (before.right, best.loss) == (5, 0.9)
    for name, array in kept.items():
        np.testing.assert_array_equal(array, seen[2][name])
        assert not np.array_equal(array, seen[3][name])


def test_a_pass_takes_a_share_of_the_images(network: Make, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled, train, validation = trained(network, data)
    seen: list[int] = []

    def watched(network: Network, batches: Iterable[Batch], *rest: Any) -> float:
        taken = list(batches)
        seen.append(sum(len(labels) for _, labels in taken))
        return learn(network, taken, *rest)

    monkeypatch.setattr(under_test, "learn", watched)
    told = Scaling(epochs=2, share=0.3, lr=0.01)
    train_scales(scaled, train, validation, LOCAL, told, Place(0, 1), np.random.default_rng(0))
    # Of 8 batches of 20.
    assert seen == [60, 60]


def test_better_is_more_images_or_less_loss() -> None:
    one = Score(5, 10, 1.0)
    assert Score(6, 10, 9.0).better(one) and Score(5, 10, 0.9).better(one)
    assert not one.better(one) and not Score(4, 10, 0.1).better(one) and not Score(5, 10, 1.1).better(one)
    assert not Score(5, 10, float("nan")).better(one)


def rates(schedule: str, number: int) -> list[float]:
    return list(learning_rates(Scaling(2, lr=0.8, schedule=schedule), Place(number, 4), 5))


def test_rates_follow_the_schedule() -> None:
    """Batch by batch: linear over the whole run, cosine anew in every round."""
    assert rates("none", 0) == rates("none", 3) == [0.8] * 10
    whole = [rate for number in range(4) for rate in rates("linear", number)]
    np.testing.assert_allclose(whole, [0.8 * (1 - i / 40) for i in range(40)])
    cosine = [0.4 * (1 + np.cos(np.pi * i / 10)) for i in range(10)]
    np.testing.assert_allclose(rates("cosine", 0), cosine)
    assert rates("cosine", 0) == rates("cosine", 3)
