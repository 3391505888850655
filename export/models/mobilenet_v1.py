"""MobileNet-V1 of width 1: Howard et al. 2017 (arXiv:1704.04861).

======================  ===========  ==========  ===========
after layer             28 px        32 px       224 px
======================  ===========  ==========  ===========
``stem``                32x28x28     32x32x32    32x112x112
``blocks.2``            128x14x14    128x16x16   128x56x56
``blocks.3.depthwise``  128x7x7      128x8x8     128x28x28    default cut: a quarter of the work is done
``blocks.3``            256x7x7      256x8x8     256x28x28
``blocks.5``            512x4x4      512x4x4     512x14x14
``blocks.12``           1024x2x2     1024x2x2    1024x7x7
======================  ===========  ==========  ===========
"""

from collections import OrderedDict

from torch import nn

#: Output channels and stride of the depthwise-separable blocks.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobilenet_v1(channels: int, classes: int, *, small: bool) -> nn.Module:
    """MobileNet-V1 for images of `channels`; `small` starts with stride 1 instead of 2."""
    widths = (32, *(width for width, _ in BLOCKS))
    blocks = [_separable(widths[i], width, stride) for i, (width, stride) in enumerate(BLOCKS)]
    return nn.Sequential(
        OrderedDict(
            stem=_convolution(channels, 32, 3, 1 if small else 2),
            blocks=nn.Sequential(*blocks),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(1024, classes),
        )
    )


def _separable(channels: int, out: int, stride: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            depthwise=_convolution(channels, channels, 3, stride, groups=channels),
            pointwise=_convolution(channels, out, 1, 1),
        )
    )


def _convolution(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
            bn=nn.BatchNorm2d(out),
            relu=nn.ReLU(),
        )
    )
