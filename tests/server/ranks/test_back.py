"""Steps of two ranks against those of one server with all images."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import BundleError, Diverged, EdgekitError, Refused, TransportError
from edgekit.server.ranks.back import JointBackHalf
from edgekit.server.train import BackHalf, OptimizerConfig, Outcome, Part
from tests.server.ranks.together import at_once, groups
from tests.server.talk import CPU

SGD = OptimizerConfig("sgd", 0.1, 0.9, 1e-3)
ORDERS = (np.array([3, 1, 0, 2, 7, 6, 5, 4]), np.arange(8))
#: Images that each rank has, step by step: one each, none, and one. The norm of two values makes much of what rounding
#: leaves, and comes first.
SIZES = [(1, 1), (5, 7), (0, 6), (1, 3), (4, 0)]


class Norms(nn.Module):
    """Feature (n,8,4,4) -> logits (n,3): batch norm of maps and of single values, and around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6, momentum=0.3)])
        self.linear, self.last = nn.Linear(96, 3), nn.BatchNorm1d(3)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norms[0](self.first(feature)))
        x = torch.relu(self.norms[1](self.second(x)) + x)
        logits: torch.Tensor = self.last(self.linear(torch.flatten(x, 1)))
        return logits


@pytest.fixture(scope="module")
def given(make_archive: Callable[..., bytes]) -> tuple[bytes, bytes, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    return archived(make_archive, Norms())


def archived(make_archive: Callable[..., bytes], network: nn.Module) -> tuple[bytes, bytes, dict[str, np.ndarray]]:
    state = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
    return make_archive(network, True), make_archive(network, False), state


def alone(given: Any) -> BackHalf:
    train, evaluation, state = given
    return BackHalf.from_programs(train, evaluation, state, CPU, SGD)


def joint(given: Any) -> tuple[JointBackHalf, JointBackHalf]:
    first, second = (JointBackHalf(alone(given), group, SGD) for group in groups(2))
    return first, second


def parts_of(step: int, sizes: tuple[int, int], rank: int | None = None) -> list[Part]:
    """The parts of both ranks; for one of them, those of the other without features."""
    rng = np.random.default_rng(step)
    parts = []
    for owner, n in enumerate(sizes):
        coded = torch.from_numpy(rng.normal(size=(n, 8, 4, 4)).astype(np.float32))
        labels = rng.integers(0, 3, n)
        if n:
            parts.append(Part(coded if rank in (None, owner) else coded[:0], ORDERS[owner], labels))
    return parts


def both(ranks: tuple[JointBackHalf, JointBackHalf], step: int, sizes: tuple[int, int]) -> list[Any]:
    return at_once(*(lambda rank=rank: ranks[rank].step(parts_of(step, sizes, rank), 0.1) for rank in range(2)))


def owners(sizes: tuple[int, int]) -> Iterator[int]:
    return (owner for owner, n in enumerate(sizes) if n)


def test_two_ranks_make_the_step_of_one(given: Any) -> None:
    ranks, one = joint(given), alone(given)
    for step, sizes in enumerate(SIZES):
        found = both(ranks, step, sizes)
        for i, (owner, wanted) in enumerate(zip(owners(sizes), one.step(parts_of(step, sizes), 0.1), strict=True)):
            own: Outcome = found[owner][i]
            other: Outcome = found[1 - owner][i]
            assert (own.loss, own.right) == (other.loss, other.right)
            assert own.loss == pytest.approx(wanted.loss, rel=1e-4) and own.right == wanted.right
            np.testing.assert_allclose(own.gradient, wanted.gradient, rtol=1e-3, atol=3e-6)
            assert own.gradient.dtype == np.float32 and len(other.gradient) == 0
    states = [rank.state_dict() for rank in ranks]
    for name, array in one.state_dict().items():
        assert np.array_equal(states[0][name], states[1][name]), name
        np.testing.assert_allclose(states[0][name], array, rtol=1e-3, atol=3e-5, err_msg=name)


def test_evaluation_concerns_one_rank(given: Any) -> None:
    ranks = joint(given)
    (part,) = parts_of(0, (5, 0))
    assert ranks[1].evaluate(*part)[0] == alone(given).evaluate(*part)[0]


def test_too_few_images_in_all_are_refused_at_all(given: Any) -> None:
    ranks = joint(given)
    found = both(ranks, 0, (1, 0))
    assert all(isinstance(each, Refused) and "takes 2 to" in str(each) for each in found)
    assert ranks[0].batch == alone(given).batch


def test_what_diverges_at_one_rank_does_at_all(given: Any) -> None:
    ranks = joint(given)
    before = ranks[0].state_dict()
    parts = [parts_of(0, (4, 4), rank) for rank in range(2)]
    parts[0][0].coded[0, 0, 0, 0] = np.inf
    found = at_once(*(lambda rank=rank: ranks[rank].step(parts[rank], 0.1) for rank in range(2)))
    assert [type(each) for each in found] == [Diverged, Diverged]
    for rank in ranks:
        assert all(np.array_equal(array, before[name]) for name, array in rank.state_dict().items())


def test_a_step_that_a_lost_rank_broke_changes_nothing(given: Any) -> None:
    ranks = joint(given)
    before, lost = ranks[0].state_dict(), ranks[1]._group

    def breaks() -> None:
        lost.gather(torch.zeros(3, 6, dtype=torch.float64))
        lost.leave()  # type: ignore[attr-defined]

    found = at_once(lambda: ranks[0].step(parts_of(0, (4, 4), 0), 0.1), breaks)
    assert isinstance(found[0], TransportError)
    assert all(np.array_equal(array, before[name]) for name, array in ranks[0].state_dict().items())


def test_dropout_is_that_of_one_server(make_archive: Callable[..., bytes]) -> None:
    network = nn.Sequential(
        nn.Conv2d(8, 6, 3, padding=1), nn.Dropout(0.3), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(96, 3)
    )
    given = archived(make_archive, network)
    for step, sizes in enumerate(SIZES):
        wanted, *found = (
            drawn(each, step, sizes, rank)
            for each, rank in zip((alone(given), *joint(given)), (None, 0, 1), strict=True)
        )
        assert not np.allclose(wanted, drawn(alone(given), step, sizes, None, seed=step + 1)), "something is drawn"
        rows = [slice(0, sizes[0]), slice(sizes[0], None)]
        for own, row in zip(found, rows, strict=True):
            np.testing.assert_allclose(own, wanted[row], rtol=1e-5, atol=1e-6)


def drawn(back: BackHalf, step: int, sizes: tuple[int, int], rank: int | None, seed: int = 0) -> np.ndarray:
    """The gradient at the features of one pass, which shows what was dropped: only one thread draws at a time."""
    parts = parts_of(step, sizes, rank)
    here = [part for part in parts if len(part.coded)]
    program: Any = back._train
    if rank is not None:
        program.begin([len(part.labels) for part in parts], [len(part.coded) > 0 for part in parts])
    torch.manual_seed(seed)
    leaf = torch.cat([part.coded for part in here or parts]).requires_grad_()
    program(leaf * 1).sum().backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8, track_running_stats=False)])
def test_a_norm_that_cannot_be_joined_is_refused(make_archive: Callable[..., bytes], norm: nn.Module) -> None:
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(128, 3))
    for each in both(joint(archived(make_archive, network)), 0, (4, 4)):
        assert isinstance(each, EdgekitError) and isinstance(each, BundleError) and "several ranks" in str(each)
