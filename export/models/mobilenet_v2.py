"""MobileNet-V2 of width 1: Sandler et al. 2018 (arXiv:1801.04381).

===============  ===========  ==========  ===========
after layer      28 px        32 px       224 px
===============  ===========  ==========  ===========
``features.0``   32x28x28     32x32x32    32x112x112
``features.3``   24x28x28     24x32x32    24x56x56
``features.6``   32x14x14     32x16x16    32x28x28
``features.7``   64x7x7       64x8x8      64x14x14     default cut: a linear bottleneck, a third of the work is done
``features.17``  320x4x4      320x4x4     320x7x7
``features.18``  1280x4x4     1280x4x4    1280x7x7
===============  ===========  ==========  ===========
"""

from collections import OrderedDict

import torch
from torch import nn

#: Expansion, output channels, repeats and first stride of the inverted residuals (the paper's table 2).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear bottleneck; (n,channels,h,w) -> (n,out,h/stride,w/stride).

    The input is added where the shapes are equal.
    """

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.residual = stride == 1 and channels == out
        wide = channels * expansion
        self.conv = nn.Sequential()
        if expansion > 1:
            self.conv.append(_convolution(channels, wide, 1, 1))
        self.conv.append(_convolution(wide, wide, 3, stride, groups=wide))
        self.conv.append(nn.Conv2d(wide, out, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return x + y if self.residual else y


def mobilenet_v2(channels: int, classes: int, *, small: bool) -> nn.Module:
    """MobileNet-V2 for images of `channels`; `small` starts the network and its second stage with stride 1."""
    features = nn.Sequential(_convolution(channels, 32, 3, 1 if small else 2))
    entering = 32
    for stage, (expansion, out, repeats, first) in enumerate(STAGES):
        strides = (1 if small and stage == 1 else first, *[1] * (repeats - 1))
        for stride in strides:
            features.append(InvertedResidual(entering, out, stride, expansion))
            entering = out
    features.append(_convolution(entering, 1280, 1, 1))
    return nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes)),
        )
    )


def _convolution(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> nn.Module:
    convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU6())
