"""Weights by name and scales of filters: a scale of 1 changes nothing, and learns by the gradient of its filter."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from edgekit.errors import ShapeError, UnknownName, UsageError
from edgekit.federate.apart import SCALE
from edgekit.federate.data import Data
from edgekit.federate.network import Network
from edgekit.federate.training import learn, optimizer

Make = Callable[[], nn.Module]
SCALED = ("0.weight", "3.weight", "9.weight")


def batch(data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    return next(data.in_order())


def test_everything_float_travels_by_the_names_of_the_network(network: Make) -> None:
    plain, scaled = Network(network()), Network(network(), scaled=())
    expected = {name for name, t in network().state_dict().items() if t.is_floating_point()}
    assert set(plain.weights) == expected
    assert set(scaled.weights) == expected | {name + SCALE for name in SCALED}
    assert set(scaled.scales) == {name + SCALE for name in SCALED}
    assert {name: s.shape for name, s in scaled.scales.items()} == dict(
        zip((name + SCALE for name in SCALED), ((8,), (12,), (10,)), strict=True)
    )
    assert plain.variances == ("1.running_var", "4.running_var")


def test_scales_of_1_change_nothing(network: Make, data: Data) -> None:
    """Neither the scores nor three steps of training, bit for bit."""
    plain, scaled = Network(network()), Network(network(), scaled=())
    images, labels = batch(data)
    for each in (plain, scaled):
        each.module.eval()
    with torch.no_grad():
        assert torch.equal(plain.module(images), scaled.module(images))
    for each in (plain, scaled):
        torch.manual_seed(1)
        steps = optimizer("adam", each.learn_weights(), 0.9, 0.0)
        learn(each, [(images, labels)] * 3, steps, [0.01] * 3, "float32")
    now = scaled.weights
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(array, now[name])
    assert all((array == 1).all() for array in scaled.scales.values())


def test_a_scale_learns_by_the_gradient_at_the_scaled_weight(network: Make, data: Data) -> None:
    """d loss / d scale: that of the scaled weight times the unscaled weight, summed over the filter."""
    scaled, plain = Network(network(), scaled=()), Network(network())
    rng = np.random.default_rng(0)
    scaled.set({name: rng.uniform(0.5, 2, array.shape).astype(np.float32) for name, array in scaled.scales.items()})
    folded = scaled.folded()
    plain.set({name: folded[name] for name in plain.weights})
    images, labels = batch(data)
    for each in (scaled, plain):
        each.learn_scales() if each is scaled else each.learn_weights()
        each.module.eval()
        cross_entropy(each.module(images), labels).backward()
    weights, gradients = scaled.weights, dict(plain.module.named_parameters())
    for name, scale in scaled._scales.items():
        weight = name.removesuffix(SCALE)
        at_weight = gradients[weight].grad
        assert at_weight is not None and scale.grad is not None
        expected = (at_weight.numpy() * weights[weight]).reshape(len(scale), -1).sum(axis=1)
        np.testing.assert_allclose(scale.grad.numpy(), expected, rtol=1e-4, atol=1e-7)
        assert np.abs(expected).max() > 0


def test_folded_is_the_network_without_scales(network: Make, data: Data) -> None:
    scaled, plain = Network(network(), scaled=()), network()
    scaled.set({name: np.full(array.shape, 1.5, np.float32) for name, array in scaled.scales.items()})
    plain.load_state_dict({name: torch.from_numpy(array) for name, array in scaled.folded().items()})
    images, _ = batch(data)
    with torch.no_grad():
        # The plain one has another memory format, and sums in another order.
        torch.testing.assert_close(plain.eval()(images), scaled.module.eval()(images), rtol=1e-5, atol=1e-5)


def test_scales_learn_alone_and_statistics_of_norms_stay(network: Make, data: Data) -> None:
    scaled = Network(network(), scaled=("3",))
    before = scaled.weights
    steps = optimizer("sgd", scaled.learn_scales(), 0.9, 0.0)
    learn(scaled, [batch(data)] * 2, steps, [0.1] * 2, "float32")
    moved = {name for name, array in scaled.weights.items() if not np.array_equal(array, before[name])}
    assert moved == {"3.weight" + SCALE}
    assert scaled.module[8].training, "dropout is part of training"  # type: ignore[index]


def test_chosen_layers_learn_and_travel_alone(network: Make, data: Data) -> None:
    part = Network(network(), learning=("3", "4", "9"), scaled=())
    assert set(part.weights) == {
        "3.weight", "4.weight", "4.bias", "4.running_mean", "4.running_var", "9.weight", "9.bias",
        "3.weight" + SCALE, "9.weight" + SCALE,
    }  # fmt: skip
    before = part.folded()
    steps = optimizer("sgd", part.learn_weights(), 0.9, 0.0)
    learn(part, [batch(data)] * 2, steps, [0.1] * 2, "float32")
    moved = {name for name, array in part.folded().items() if not np.array_equal(array, before[name])}
    told = {"4.num_batches_tracked", "3.weight", "4.weight", "4.bias", "4.running_mean", "4.running_var", "9.weight"}
    assert moved == told | {"9.bias"}


def test_frozen_norms_keep_their_statistics(network: Make, data: Data) -> None:
    frozen = Network(network(), norms="frozen")
    assert not any("running" in name for name in frozen.weights) and frozen.variances == ()
    before = frozen.folded()
    learn(frozen, [batch(data)], optimizer("sgd", frozen.learn_weights(), 0.9, 0.0), [0.1], "float32")
    after = frozen.folded()
    np.testing.assert_array_equal(before["1.running_mean"], after["1.running_mean"])
    assert not np.array_equal(before["1.weight"], after["1.weight"])


def test_a_network_that_is_one_layer() -> None:
    alone = Network(nn.Linear(3, 2), scaled=())
    assert set(alone.weights) == {"weight", "bias", "weight" + SCALE} and set(alone.folded()) == {"weight", "bias"}


def test_layers_that_are_not_there_or_have_no_filters_are_refused(network: Make) -> None:
    with pytest.raises(UnknownName, match="layer 'head'"):
        Network(network(), learning=("head",))
    with pytest.raises(UsageError, match="no convolution or linear layer"):
        Network(network(), scaled=("1",))
    with pytest.raises(UsageError, match="scales for 0: not among the layers that learn, 3, 4: let"):
        Network(network(), learning=("3", "4"), scaled=("0", "3"))
    with pytest.raises(UsageError, match="computed from others"):
        Network(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), scaled=())


def test_weights_of_another_network_are_refused(network: Make) -> None:
    here = Network(network())
    with pytest.raises(ShapeError, match="no weight here is called x"):
        here.set({"x": np.zeros(1, np.float32)})
    for wrong in (np.zeros(9, np.float32), np.zeros(8)):
        with pytest.raises(ShapeError, match="new weights"):
            here.set({"0.bias": wrong})
