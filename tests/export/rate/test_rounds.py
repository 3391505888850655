"""A round that is rehearsed: what it takes of an image is what its codecs make of what is learned."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import parse_update_codec
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.export.local_head import LocalHead
from edgekit.export.rate.rounds import Rehearsal, RoundBytes, RoundPlan, rehearse

PLAN = RoundPlan(FedAvg(), FedAvg(), 100.0, 4, 1.0, "sgd", 0.05, 0.9, True)
#: Of the front half: weight, bias, and the norm's weight and bias; then its two statistics.
WEIGHTS, STATISTICS = 8 * 9 + 8 + 8 + 8, 16


@pytest.fixture(scope="module")
def given() -> Rehearsal:
    generator = torch.Generator().manual_seed(0)
    front = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    back = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 10))
    images = torch.randn(48, 1, 16, 16, generator=generator)
    return Rehearsal(front, back, images, torch.arange(48) % 10, 16)


def test_uncompressed_it_is_all_that_learns(given: Rehearsal) -> None:
    before = copy.deepcopy(given.front.state_dict())
    spent = rehearse(PLAN, given, False, 0)
    for way in spent:
        # Whole frames: with some bytes of header.
        assert 4 * (WEIGHTS + STATISTICS) < 100 * way < 4 * (WEIGHTS + STATISTICS) + 100
    for name, array in given.front.state_dict().items():
        assert torch.equal(array, before[name]), "the network is as it was"


@pytest.mark.parametrize(("frozen", "averaged"), [(True, True), (False, False)])
def test_statistics_that_do_not_travel_do_not_count(given: Rehearsal, frozen: bool, averaged: bool) -> None:
    spent = rehearse(PLAN._replace(statistics=averaged), given, frozen, 0)
    assert 4 * WEIGHTS < 100 * spent.up < 4 * WEIGHTS + 100


def test_weights_that_do_not_learn_do_not_count(given: Rehearsal) -> None:
    front = copy.deepcopy(given.front)
    front[0].requires_grad_(False)  # type: ignore[index]
    spent = rehearse(PLAN, given._replace(front=front), False, 0)
    assert 4 * (16 + STATISTICS) < 100 * spent.up < 4 * (16 + STATISTICS) + 100


def test_the_local_head_counts_where_its_loss_does(given: Rehearsal) -> None:
    head = LocalHead(8, 10, seed=0)
    own = sum(array.size for array in head.arrays().values())
    with_head, before = given._replace(head=head), copy.deepcopy(head.state_dict())
    assert rehearse(PLAN, with_head, False, 0) == rehearse(PLAN, given, False, 0)
    spent = rehearse(PLAN._replace(local_loss=0.5), with_head, False, 0)
    for way in spent:
        assert 4 * (WEIGHTS + STATISTICS + own) < 100 * way < 4 * (WEIGHTS + STATISTICS + own) + 100
    for name, array in head.state_dict().items():
        assert torch.equal(array, before[name]), "the head is as it was"


def test_the_front_half_and_the_head_learn_from_the_local_loss(given: Rehearsal) -> None:
    sent: list[Arrays] = []

    class Seen(FedAvg):
        def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
            sent.append(update)
            return super().pack(update, rng)

    plan = PLAN._replace(up=Seen(), statistics=False)
    rehearse(plan, given, False, 0)
    rehearse(plan._replace(local_loss=0.5), given._replace(head=LocalHead(8, 10, seed=0)), False, 0)
    alone, local = sent
    own = set(local) - set(alone)
    assert own == set(LocalHead(8, 10, seed=0).arrays()) and all(local[name].any() for name in own)
    assert not np.allclose(local["0.weight"], alone["0.weight"], rtol=1e-2)


def test_codecs_and_what_comes_to_devices_that_rest(given: Rehearsal) -> None:
    dense = rehearse(PLAN, given, False, 0)
    plan = PLAN._replace(up=parse_update_codec("quantised:step=1"))
    one_way = rehearse(plan, given, False, 0)
    assert one_way.up < 0.3 * dense.up and one_way.down == dense.down
    both = rehearse(plan._replace(down=plan.up, receivers=2.0), given, False, 0)
    assert both.up == one_way.up and both.down < 0.6 * dense.down
    half = rehearse(plan._replace(images=50.0), given, False, 0)
    assert half == RoundBytes(2 * one_way.up, 2 * one_way.down)


def test_the_same_seed_gives_the_same_and_draws_from_nobody_else(given: Rehearsal) -> None:
    plan = PLAN._replace(up=parse_update_codec("quantised"), optimizer="adam", rate=0.001)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = rehearse(plan, given, False, 3)
    assert torch.equal(torch.rand(1), expected)
    assert rehearse(plan, given, False, 3) == first
