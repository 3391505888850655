"""VGG with 11 weight layers and batch norm: configuration A of Simonyan and Zisserman 2015 (arXiv:1409.1556).

===============  ===========  ==========  ===========
after layer      28 px        32 px       224 px
===============  ===========  ==========  ===========
``features.3``   64x14x14     64x16x16    64x112x112
``features.7``   128x7x7      128x8x8     128x56x56    default cut: pool of the second convolution
``features.14``  256x3x3      256x4x4     256x28x28
``features.28``  512x1x1      512x1x1     512x7x7
===============  ===========  ==========  ===========
"""

from torch import nn

#: Output channels of the convolutions; None is a max-pool.
CONFIGURATION_A = (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512, None)


def vgg11(channels: int, classes: int, *, small: bool) -> nn.Module:
    """VGG-11 for images of `channels`; `small` replaces the two hidden layers of 4096 by an average over positions.

    The large form has a bias in each convolution, as published weights do. The small one has none: batch norm
    subtracts it again, so it learns nothing.
    """
    layers: list[nn.Module] = []
    width = channels
    for out in CONFIGURATION_A:
        if out is None:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(width, out, 3, padding=1, bias=not small), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
    # 28 px are down to one position at the last pool; even sides are pooled the same with or without ceil_mode.
    layers[-1] = nn.MaxPool2d(2, 2, ceil_mode=small)
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1 if small else 7))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(512, classes) if small else _large_head(classes))
    return network


def _large_head(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, classes),
    )
