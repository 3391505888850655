import numpy as np
import pytest
import torch

from edgekit.errors import UnknownName
from edgekit.runtime.optim import clip_to_weights, optimizer


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_equal_pytorch(name: str, rng: np.random.Generator) -> None:
    start = rng.standard_normal((3, 4), dtype=np.float32)
    ours, theirs = {"w": start.copy()}, torch.nn.Parameter(torch.from_numpy(start.copy()))
    config = {"momentum": 0.9, "weight_decay": 0.01}
    mine = optimizer(name, config)
    reference: torch.optim.Optimizer
    if name == "sgd":
        reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01)
    else:
        reference = torch.optim.Adam([theirs], lr=0.1, weight_decay=0.01)
    for step in range(6):
        gradient = rng.standard_normal((3, 4), dtype=np.float32)
        rate = 0.1 / (step + 1)
        reference.param_groups[0]["lr"] = rate
        theirs.grad = torch.from_numpy(gradient.copy())
        reference.step()
        mine.step(ours, {"w": gradient}, rate)
        np.testing.assert_allclose(ours["w"], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_unknown() -> None:
    with pytest.raises(UnknownName, match="unknown optimizer 'adamm': did you mean adam"):
        optimizer("adamm", {})


def test_gradients_are_clipped_to_their_weights() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((6, 3, 2, 2)).astype(np.float32), "b": np.arange(6, dtype=np.float32)}
    weights["w"][4] = 0  # a channel of no length may still move a little
    scale = np.array([1e-3, 1e-2, 1, 10, 1, 0], dtype=np.float32)
    gradients = {"w": weights["w"][::-1] * scale[:, None, None, None], "b": weights["b"] * np.float32(3)}
    clipped = clip_to_weights(gradients, weights, 0.1)
    for channel in range(6):
        weight, gradient = weights["w"][channel], gradients["w"][channel]
        allowed = 0.1 * max(float(np.linalg.norm(weight)), 1e-3)
        length = float(np.linalg.norm(gradient))
        expected = gradient * min(1, allowed / length) if length else gradient
        np.testing.assert_allclose(clipped["w"][channel], expected, rtol=1e-5)
    np.testing.assert_array_equal(clipped["w"][0], gradients["w"][0])
    np.testing.assert_allclose(clipped["b"], weights["b"] * 0.1, rtol=1e-5)
    assert clipped["w"].dtype == clipped["b"].dtype == np.float32
