"""A decoder that is trained to turn features at a cut back into images, and how close what it makes is to them.

::

    feature (n,C,h,w) --norm, two convolutions--> --twice the side, two convolutions--> ... --> image (n,C,H,W)

Inversion of a network by a second one: Dosovitskiy and Brox 2016 (arXiv:1506.02753); of split networks by whoever can
run the front half on images of his own: He et al. 2019 (10.1145/3359789.3359824).
"""

from typing import cast

import numpy as np
import torch
from bfloat16 import precision
from torch import nn
from torch.nn import functional

#: Channels of a layer times the side of what it computes.
WIDTH = 768
BATCH = 64
#: The highest learning rate of Adam, which rises to it and falls to zero (OneCycleLR).
RATE = 8e-3
#: SSIM: side and deviation of the Gaussian window, and what keeps quotients finite, all as Wang et al. 2004 have them.
WINDOW, DEVIATION = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def scaled(images: np.ndarray) -> torch.Tensor:
    """`images` (n,C,H,W) uint8 as f32 of 0 to 1."""
    return torch.from_numpy(images).float() / 255


def decoder(feature: torch.Size, image: torch.Size) -> nn.Module:
    """A fresh one, from features (n,C,h,w) of the shape `feature` to images (n,C,H,W) of the shape `image`."""
    side, end = feature[2], image[2]
    layers: list[nn.Module] = [nn.BatchNorm2d(feature[1])]
    before = feature[1]
    while True:
        width = WIDTH // side
        for given in (before, width):
            layers += [nn.Conv2d(given, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
        if side == end:
            break
        side = min(2 * side, end)
        layers.append(nn.Upsample(size=(side, side)))
    layers += [nn.Conv2d(before, image[1], 3, padding=1), nn.Sigmoid()]
    network = nn.Sequential(*layers)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def train(features: torch.Tensor, images: torch.Tensor, epochs: int, seed: int) -> nn.Module:
    """The decoder from `features` (n,C,h,w) f32 to `images` (n,C,H,W) of 0 to 1, trained for the squared error."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = decoder(features.shape, images.shape).train()
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters())
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(epochs):
        for chosen in torch.split(torch.from_numpy(rng.permutation(len(images))), BATCH):
            loss = functional.mse_loss(_run(network, features[chosen]), images[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def decode(network: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Images (n,C,H,W) f32 of 0 to 1 that the decoder `network` makes of `features` (n,C,h,w)."""
    with torch.no_grad():
        return torch.cat([_run(network, part) for part in torch.split(features, BATCH)])


def _run(network: nn.Module, features: torch.Tensor) -> torch.Tensor:
    with precision(True):
        return cast(torch.Tensor, network(features.contiguous(memory_format=torch.channels_last))).float()


def figures(answers: torch.Tensor, originals: torch.Tensor) -> dict[str, float]:
    """Means over the images of what tells how close `answers` are to `originals`, both (n,C,H,W) of 0 to 1."""
    errors = (answers - originals).square().mean((1, 2, 3))
    means = {"mse": errors, "psnr": -10 * errors.log10(), "ssim": ssim(answers, originals)}
    return {name: round(float(values.mean()), 5) for name, values in means.items()}


def ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(n,) structural similarity of `first` and `second` (n,C,H,W) of 0 to 1, mean over windows and channels."""
    distance = torch.arange(WINDOW) - WINDOW // 2
    line = torch.exp(-(distance**2) / (2 * DEVIATION**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def local(values: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(values.flatten(0, 1)[:, None], window)

    means = local(first), local(second)
    variances = local(first**2) - means[0] ** 2 + local(second**2) - means[1] ** 2
    covariance = local(first * second) - means[0] * means[1]
    index = (2 * means[0] * means[1] + C1) * (2 * covariance + C2)
    index = index / ((means[0] ** 2 + means[1] ** 2 + C1) * (variances + C2))
    return index.mean((1, 2, 3)).view(len(first), -1).mean(1)
