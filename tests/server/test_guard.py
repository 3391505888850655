import copy
import math

import pytest
import torch

from edgekit.server.guard import DECAY, GROWTH, WARM_UP, Guards, Limit


def warmed(length: float = 1.0) -> Limit:
    limit = Limit(4.0)
    for _ in range(WARM_UP):
        assert limit.value == math.inf
        limit.see(length)
    return limit


def test_a_limit_follows_the_recent_largest_length() -> None:
    limit = warmed()
    assert limit.value == 4.0
    limit.see(0.0)
    assert limit.value == pytest.approx(4.0 * DECAY)
    for _ in range(1000):
        limit.see(0.001)
    assert limit.value == pytest.approx(0.5), "half of the largest of all"


def test_a_single_wild_length_hardly_raises_the_limit_and_a_lasting_one_becomes_normal() -> None:
    limit = warmed()
    limit.see(1e6)
    assert limit.value == 4.0 * GROWTH
    for _ in range(20):
        limit.see(1e6)
    assert limit.value > 1e6


def test_what_was_all_zero_has_no_limit_until_it_is_something() -> None:
    limit = Limit(4.0)
    for _ in range(2 * WARM_UP):
        limit.see(0.0)
    assert limit.value == math.inf
    limit.see(1.0)
    assert limit.value == 4.0


def guards(weights: float = 1.0) -> Guards:
    made = Guards()
    for step in range(WARM_UP):
        assert made.calm({"mean": torch.tensor([float(step)])}, {"mean": torch.tensor([step + 1.0])})
        made.clip_weights([torch.tensor([weights])])
        made.clip_parts([torch.full((4, 1, 1, 1), 0.25)])
    return made


def test_ordinary_gradients_keep_their_bits() -> None:
    made = guards()
    torch.manual_seed(0)
    gradients = [torch.randn(3, 4), torch.randn(7)]
    kept = [gradient.clone() for gradient in gradients]
    made.clip_weights([gradient.mul_(0.5) for gradient in gradients])
    assert all(torch.equal(a, b * 0.5) for a, b in zip(gradients, kept, strict=True))
    assert (made.clipped_steps, made.clipped_parts, made.undone) == (0, 0, 0)


def test_a_wild_gradient_keeps_its_direction_and_gets_the_length_of_the_limit() -> None:
    made = guards()
    gradients = [torch.tensor([300.0]), torch.tensor([[400.0]])]
    made.clip_weights(gradients)
    torch.testing.assert_close(gradients, [torch.tensor([2.4]), torch.tensor([[3.2]])])
    assert made.clipped_steps == 1


def test_only_the_part_that_is_wild_is_clipped_whatever_its_images() -> None:
    made = guards()
    # Lengths times the root of the images: 1 so far; then 0.25 * 4 * 4 = 4 at the limit, and 40 beyond it.
    calm, wild = torch.full((16, 1, 1, 1), 0.25), torch.full((4, 1, 1, 1), 10.0)
    made.clip_parts([calm, wild])
    assert torch.equal(calm, torch.full((16, 1, 1, 1), 0.25))
    torch.testing.assert_close(wild, torch.full((4, 1, 1, 1), 1.0))
    assert made.clipped_parts == 1


def test_statistics_that_jump_are_not_calm_and_counts_are_passed_over() -> None:
    made = guards()
    zero, count = torch.zeros(1), torch.tensor(0)
    assert made.calm({"mean": zero, "n": count}, {"mean": zero + 15.0, "n": count + 1000})
    assert not made.calm({"mean": zero, "n": count}, {"mean": zero + 1000.0, "n": count + 1})
    assert made.undone == 1
    assert made.calm({"n": count}, {"n": count + 1000})


def test_a_copy_goes_on_as_the_original() -> None:
    made = guards()
    other = copy.deepcopy(made)
    for each in (made, other):
        each.clip_weights([torch.tensor([9.0])])
        each.calm({"mean": torch.zeros(1)}, {"mean": torch.ones(1)})
    assert made == other and made.clipped_steps == 1
