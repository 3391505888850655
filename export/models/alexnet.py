"""AlexNet in one column: Krizhevsky 2014 (arXiv:1404.5997), after Krizhevsky et al. 2012.

It has no norm, so it wants a learning rate of about 0.01.

===============  ===========  ==========  ===========
after layer      28 px        32 px       224 px
===============  ===========  ==========  ===========
``features.2``   64x14x14     64x16x16    64x27x27
``features.5``   192x7x7      192x8x8     192x13x13    default cut: second pool, two fifths of the work are done
``features.9``   256x7x7      256x8x8     256x13x13
``features.12``  256x4x4      256x4x4     256x6x6
===============  ===========  ==========  ===========
"""

from collections import OrderedDict

from torch import nn


def alexnet(channels: int, classes: int, *, small: bool) -> nn.Module:
    """AlexNet for images of `channels`.

    `small` starts with 5x5 and stride 1 instead of 11x11 and 4, and averages over positions before one linear layer.
    """
    # Small maps keep half their sides at a pool, not half less one.
    edge = 1 if small else 0
    features = nn.Sequential(
        nn.Conv2d(channels, 64, 5, 1, 2) if small else nn.Conv2d(channels, 64, 11, 4, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, edge),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, edge),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, edge),
    )
    return nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(1 if small else 6),
            flatten=nn.Flatten(),
            classifier=nn.Linear(256, classes) if small else _large_head(classes),
        )
    )


def _large_head(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
