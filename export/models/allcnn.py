"""All-CNN, convolutions alone: Springenberg et al. 2015 (arXiv:1412.6806), All-CNN-C and its form for ImageNet.

===============  ===========  ==========  ===========
after layer      28 px        32 px       224 px
===============  ===========  ==========  ===========
``conv1``        96x28x28     96x32x32    96x56x56
``conv3``        96x14x14     96x16x16    96x28x28     default cut: two fifths of the work are done (224 px: a sixth)
``conv6``        192x7x7      192x8x8     256x14x14
``conv8``        192x7x7      192x8x8     384x14x14
``classifier``   10x7x7       10x8x8      10x7x7
===============  ===========  ==========  ===========
"""

from collections import OrderedDict

from torch import nn

#: Output channels, kernel and stride of the convolutions before the classifier.
ALL_CNN_C = ((96, 3, 1), (96, 3, 1), (96, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2), (192, 3, 1), (192, 1, 1))
IMAGENET = (
    *((96, 11, 4), (96, 1, 1), (96, 3, 2), (256, 5, 1), (256, 1, 1), (256, 3, 2)),
    *((384, 3, 1), (384, 1, 1), (384, 3, 2), (1024, 3, 1), (1024, 1, 1)),
)


def allcnn(channels: int, classes: int, *, small: bool) -> nn.Module:
    """All-CNN for images of `channels`: All-CNN-C if `small`, else the paper's network for ImageNet.

    Unlike the paper's it has batch norm, without which it does not start to learn at the usual rates, padding
    in every convolution, no ReLU on the scores, and no dropout of the input, which would never run on a device.
    """
    layers = OrderedDict[str, nn.Module]()
    dropouts = (3, 6) if small else (9,)
    entering = channels
    for i, (out, kernel, stride) in enumerate(ALL_CNN_C if small else IMAGENET, 1):
        layers[f"conv{i}"] = _convolution(entering, out, kernel, stride)
        if i in dropouts:
            layers[f"dropout{i}"] = nn.Dropout()
        entering = out
    layers["classifier"] = nn.Conv2d(entering, classes, 1)
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def _convolution(channels: int, out: int, kernel: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(out), relu=nn.ReLU()))
