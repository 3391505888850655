"""ShuffleNet-V2 of width 1 and 0.5: Ma et al. 2018 (arXiv:1807.11164).

=====================  ===========  ==========  ===========
after shufflenet_v2's  28 px        32 px       224 px
=====================  ===========  ==========  ===========
``conv1``              24x28x28     24x32x32    24x112x112
``stage2.3``           116x14x14    116x16x16   116x28x28
``stage3.0``           232x7x7      232x8x8     232x14x14    default cut: a third of the work is done
``stage3.7``           232x7x7      232x8x8     232x14x14
``stage4.3``           464x4x4      464x4x4     464x7x7
``conv5``              1024x4x4     1024x4x4    1024x7x7
=====================  ===========  ==========  ===========

==========================  ===========  ==========  ===========
after shufflenet_v2_half's  28 px        32 px       224 px
==========================  ===========  ==========  ===========
``conv1``                   24x28x28     24x32x32    24x112x112
``stage2.3``                48x14x14     48x16x16    48x28x28
``stage3.0``                96x7x7       96x8x8      96x14x14     default cut: a third of the work is done
``stage3.7``                96x7x7       96x8x8      96x14x14
``stage4.3``                192x4x4      192x4x4     192x7x7
``conv5``                   1024x4x4     1024x4x4    1024x7x7
==========================  ===========  ==========  ===========
"""

from collections import OrderedDict

import torch
from torch import nn

#: Units of the three stages; the first of each halves the sides.
UNITS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Two branches whose channels are interleaved; (n,channels,h,w) -> (n,out,h/stride,w/stride).

    With stride 1, one half of the channels passes unchanged.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = out // 2
        entering = channels if stride == 2 else half
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1.extend([*_depthwise(channels, stride), *_pointwise(channels, half)])
        self.branch2 = nn.Sequential(*_pointwise(entering, half), *_depthwise(half, stride), *_pointwise(half, half))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1) if self.stride == 1 else (x, x)
        joined = torch.cat((self.branch1(left), self.branch2(right)), dim=1)
        half, sides = joined.shape[1] // 2, joined.shape[2:]
        return joined.view(-1, 2, half, sides[0], sides[1]).transpose(1, 2).flatten(1, 2)


def shufflenet_v2(channels: int, classes: int, *, small: bool) -> nn.Module:
    """ShuffleNet-V2 1.0x for images of `channels`; `small` starts with stride 1 and no max-pool."""
    return _shufflenet((116, 232, 464), channels, classes, small)


def shufflenet_v2_half(channels: int, classes: int, *, small: bool) -> nn.Module:
    """ShuffleNet-V2 0.5x for images of `channels`; `small` starts with stride 1 and no max-pool."""
    return _shufflenet((48, 96, 192), channels, classes, small)


def _shufflenet(widths: tuple[int, int, int], channels: int, classes: int, small: bool) -> nn.Module:
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Sequential(nn.Conv2d(channels, 24, 3, 1 if small else 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
    )
    if not small:
        layers["maxpool"] = nn.MaxPool2d(3, 2, 1)
    entering = 24
    for stage, (out, units) in enumerate(zip(widths, UNITS, strict=True), 2):
        rest = (ShuffleUnit(out, out, 1) for _ in range(units - 1))
        layers[f"stage{stage}"] = nn.Sequential(ShuffleUnit(entering, out, 2), *rest)
        entering = out
    return nn.Sequential(
        OrderedDict(
            layers,
            conv5=nn.Sequential(*_pointwise(entering, 1024)),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(1024, classes),
        )
    )


def _pointwise(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]
