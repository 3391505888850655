"""Steps are those of torch's own classes, bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.server.optimizer import SGD, Adam, Optimizer

SHAPES = [(4, 3, 3, 3), (4,), (), (2, 5)]
#: How the same is made here and there.
PAIRS: dict[str, tuple[Callable[[Any], Optimizer], Callable[[Any], torch.optim.Optimizer]]] = {
    "plain": (lambda given: SGD(given, 0.0, 0.0), lambda given: torch.optim.SGD(given, 0.0)),
    "momentum": (
        lambda given: SGD(given, 1e-2, 0.9),
        lambda given: torch.optim.SGD(given, 0.0, momentum=0.9, weight_decay=1e-2),
    ),
    "adam": (lambda given: Adam(given, 1e-2), lambda given: torch.optim.Adam(given, 0.0, weight_decay=1e-2)),
}


def weights() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def gradients(of: list[torch.Tensor], step: int) -> None:
    """Others at every step; the last weight has none at first."""
    torch.manual_seed(step)
    for index, weight in enumerate(of):
        gradient = torch.randn(weight.shape)
        weight.grad = gradient if step or index < len(SHAPES) - 1 else None


@pytest.mark.parametrize("name", PAIRS)
def test_steps_are_those_of_torch(name: str) -> None:
    make, of_torch = PAIRS[name]
    ours, theirs = weights(), weights()
    optimizer, reference = make(ours), of_torch(theirs)
    for step in range(4):
        gradients(ours, step)
        gradients(theirs, step)
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        reference.step()
        optimizer.step(0.1 / (step + 1))
        if step == 1:
            # As a server that goes on does, in another process.
            known, optimizer = optimizer.known, make(ours)
            optimizer.restore(known)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())
    for index, known in reference.state_dict()["state"].items():
        # torch has a buffer of None where there is no momentum.
        for key, value in known.items():
            if value is not None:
                np.testing.assert_array_equal(optimizer.known[index][key].numpy(), value.numpy())


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_what_is_restored_is_a_copy(name: str) -> None:
    first, again = PAIRS[name][0](own := weights()), PAIRS[name][0](other := weights())
    gradients(own, 1)
    first.step(0.1)
    again.restore(first.known)
    before = {index: {key: value.clone() for key, value in each.items()} for index, each in first.known.items()}
    gradients(other, 2)
    again.step(0.1)
    for index, each in before.items():
        assert all(torch.equal(first.known[index][key], value) for key, value in each.items())


def test_gradients_are_forgotten() -> None:
    given = weights()
    gradients(given, 1)
    SGD(given, 0.0, 0.0).zero_grad()
    assert all(weight.grad is None for weight in given)
