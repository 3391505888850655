"""What a front half makes of images of something, and of white noise: features (n,16,8,8) as devices send them."""

import torch
from torch import nn


def front(seed: int = 0) -> nn.Sequential:
    """Image (n,1,16,16) -> feature (n,16,8,8), with batch norm in training mode as devices have it."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)).train()


def sights(n: int, seed: int) -> torch.Tensor:
    """Of `n` images of a few bright spots each."""
    random = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    middles = torch.rand((n, 3, 2, 1, 1), generator=random) * 16
    distances = (row - middles[:, :, 0]).square() + (column - middles[:, :, 1]).square()
    feature: torch.Tensor = front()(torch.exp(-distances / 18).sum(1, keepdim=True)).detach()
    return feature


def noise(n: int, seed: int) -> torch.Tensor:
    """Of `n` images of white noise."""
    feature: torch.Tensor = front()(torch.rand((n, 1, 16, 16), generator=torch.Generator().manual_seed(seed)))
    return feature.detach()
