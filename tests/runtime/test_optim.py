import numpy as np
import pytest
import torch

from edgekit.errors import UnknownName
from edgekit.runtime.optim import optimizer


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
