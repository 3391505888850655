"""ResNet with 18 and 34 weight layers: He et al. 2016 (arXiv:1512.03385), shortcuts of kind B.

================  ===========  ==========  ===========
after resnet18's  28 px        32 px       224 px
================  ===========  ==========  ===========
``relu``          64x28x28     64x32x32    64x112x112
``layer1.1``      64x28x28     64x32x32    64x56x56
``layer2.1``      128x14x14    128x16x16   128x28x28    default cut: end of the second stage
``layer3.1``      256x7x7      256x8x8     256x14x14
``layer4.1``      512x4x4      512x4x4     512x7x7
================  ===========  ==========  ===========

================  ===========  ==========  ===========
after resnet34's  28 px        32 px       224 px
================  ===========  ==========  ===========
``relu``          64x28x28     64x32x32    64x112x112
``layer1.2``      64x28x28     64x32x32    64x56x56
``layer2.1``      128x14x14    128x16x16   128x28x28    default cut: a third of the work is done
``layer2.3``      128x14x14    128x16x16   128x28x28
``layer3.5``      256x7x7      256x8x8     256x14x14
``layer4.2``      512x4x4      512x4x4     512x7x7
================  ===========  ==========  ===========
"""

from collections import OrderedDict

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; (n,channels,h,w) -> (n,out,h/stride,w/stride)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        # Empty, it is the identity and leaves no node in a traced graph.
        self.downsample = nn.Sequential()
        if stride != 1 or channels != out:
            self.downsample.append(nn.Conv2d(channels, out, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out))
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        summed: torch.Tensor = self.relu2(residual + self.downsample(x))
        return summed


def resnet18(channels: int, classes: int, *, small: bool) -> nn.Module:
    """ResNet-18 for images of `channels`; `small` starts with a 3x3 convolution of stride 1 and no max-pool."""
    return _resnet((2, 2, 2, 2), channels, classes, small)


def resnet34(channels: int, classes: int, *, small: bool) -> nn.Module:
    """ResNet-34 for images of `channels`; `small` starts with a 3x3 convolution of stride 1 and no max-pool."""
    return _resnet((3, 4, 6, 3), channels, classes, small)


def _resnet(blocks: tuple[int, int, int, int], channels: int, classes: int, small: bool) -> nn.Module:
    if small:
        stem = OrderedDict[str, nn.Module](conv1=nn.Conv2d(channels, 64, 3, 1, 1, bias=False))
    else:
        stem = OrderedDict[str, nn.Module](conv1=nn.Conv2d(channels, 64, 7, 2, 3, bias=False))
    stem.update(bn1=nn.BatchNorm2d(64), relu=nn.ReLU())
    if not small:
        stem["maxpool"] = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(
        OrderedDict(
            stem,
            layer1=_stage(64, 64, 1, blocks[0]),
            layer2=_stage(64, 128, 2, blocks[1]),
            layer3=_stage(128, 256, 2, blocks[2]),
            layer4=_stage(256, 512, 2, blocks[3]),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(512, classes),
        )
    )


def _stage(channels: int, out: int, stride: int, blocks: int) -> nn.Module:
    rest = (BasicBlock(out, out, 1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(channels, out, stride), *rest)
