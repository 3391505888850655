"""VGG with batch norm: Simonyan and Zisserman 2015 (arXiv:1409.1556), configurations A and D, and a thin A.

===============  ===========  ==========  ===========
after vgg11's    28 px        32 px       224 px
===============  ===========  ==========  ===========
``features.3``   64x14x14     64x16x16    64x112x112
``features.7``   128x7x7      128x8x8     128x56x56    default cut: pool of the second convolution
``features.14``  256x3x3      256x4x4     256x28x28
``features.28``  512x1x1      512x1x1     512x7x7
===============  ===========  ==========  ===========

===============  ===========  ==========  ===========
after vgg16's    28 px        32 px       224 px
===============  ===========  ==========  ===========
``features.6``   64x14x14     64x16x16    64x112x112
``features.13``  128x7x7      128x8x8     128x56x56    default cut: second pool, a third of the work is done
``features.23``  256x3x3      256x4x4     256x28x28
``features.43``  512x1x1      512x1x1     512x7x7
===============  ===========  ==========  ===========

==================  ===========  ==========  ===========
after vgg11_thin's  28 px        32 px       224 px
==================  ===========  ==========  ===========
``features.3``      32x14x14     32x16x16    32x112x112
``features.7``      64x7x7       64x8x8      64x56x56     default cut: second pool, a fifth of the work is done
``features.14``     128x3x3      128x4x4     128x28x28
``features.28``     128x1x1      128x1x1     128x7x7
==================  ===========  ==========  ===========
"""

from torch import nn

#: Output channels of the convolutions; None is a max-pool.
CONFIGURATION_A = (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512, None)
CONFIGURATION_D = (64, 64, None, 128, 128, None, 256, 256, 256, None, 512, 512, 512, None, 512, 512, 512, None)
THIN_A = (32, None, 64, None, 128, 128, None, 128, 128, None, 128, 128, None)


def vgg11(channels: int, classes: int, *, small: bool) -> nn.Module:
    """VGG-11 for images of `channels`; `small` replaces the two hidden layers of 4096 by an average over positions.

    The large form has a bias in each convolution, as published weights do. The small one has none: batch norm
    subtracts it again, so it learns nothing.
    """
    return _vgg(CONFIGURATION_A, channels, classes, small)


def vgg16(channels: int, classes: int, *, small: bool) -> nn.Module:
    """VGG-16 for images of `channels`; `small` as in `vgg11`."""
    return _vgg(CONFIGURATION_D, channels, classes, small)


def vgg11_thin(channels: int, classes: int, *, small: bool) -> nn.Module:
    """VGG-11 thinned as in Becking et al. 2022 (Adaptive Differential Filters, arXiv:2204.04424), 0.85 M parameters.

    Eight convolutions of 32, 64 and 6 x 128 filters and a dense layer of 128: the paper lists seven widths, but its
    1,002 filters and neurons (table 1) are those of eight. Its images are CIFAR-10's; `small` changes nothing here.
    """
    head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, classes))
    return _network(_features(THIN_A, channels, small=True), 1, head)


def _vgg(configuration: tuple[int | None, ...], channels: int, classes: int, small: bool) -> nn.Module:
    features = _features(configuration, channels, small)
    return _network(features, 1, nn.Linear(512, classes)) if small else _network(features, 7, _large_head(classes))


def _features(configuration: tuple[int | None, ...], channels: int, small: bool) -> nn.Module:
    layers: list[nn.Module] = []
    width = channels
    for out in configuration:
        if out is None:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(width, out, 3, padding=1, bias=not small), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
    # 28 px are down to one position at the last pool; even sides are pooled the same with or without ceil_mode.
    layers[-1] = nn.MaxPool2d(2, 2, ceil_mode=small)
    return nn.Sequential(*layers)


def _network(features: nn.Module, side: int, classifier: nn.Module) -> nn.Module:
    network = nn.Sequential()
    network.add_module("features", features)
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(side))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", classifier)
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
