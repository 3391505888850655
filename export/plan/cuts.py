"""A table of every layer that a network can be cut behind, with the sizes and the work on both sides."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from edgekit.codecs.base import FeatureCodec
from edgekit.errors import UnknownName, UsageError
from edgekit.export.plan.work import POOLS, count_parameters, network_work

#: Operators that are good to cut behind: activations and poolings. The next layer with weights is then the server's.
ENDS = (
    *("relu", "hardtanh", "clamp", "clamp_min", "leaky_relu", "_prelu_kernel", "elu", "gelu", "silu", "hardswish"),
    *("sigmoid", "hardsigmoid", "tanh", "mean", "_adaptive_avg_pool2d", *POOLS),
)


class Cut(NamedTuple):
    """One layer to cut behind. FLOPs and bytes are per image, FLOPs counted as `edgekit.export.plan.work` says."""

    layer: str
    #: (C,h,w) of the feature that passes; of another rank where it cannot be coded.
    shape: tuple[int, ...]
    #: The ATen operator that computes it, "relu".
    operator: str
    after_relu: bool
    #: The feature is the output of an activation, of a pooling, or of a block of layers.
    good: bool
    parameters_before: int
    parameters_after: int
    flops_before: int
    flops_after: int
    #: As float32, and by the codec's formula; None where `refusal` says why the cut cannot be used.
    raw_bytes: int | None
    coded_bytes: float | None
    refusal: str


def cut_table(network: nn.Module, input_shape: tuple[int, ...], codec: FeatureCodec) -> list[Cut]:
    """Every cut of `network` for images of `input_shape` (C,H,W), in order of computation.

    A block and its last layer are one cut under two names; both are listed. ExportError when the network cannot be
    traced or does not take such images.
    """
    work = network_work(network, input_shape)
    blocks = {name for name, layer in network.named_modules() if any(True for _ in layer.children())}
    cuts = []
    for layer, last in work.cuts.items():
        front, back = work.halves(layer)
        end = work.nodes[last]
        parameters = count_parameters(front), count_parameters(back)
        refusal = _refusal(end.shape, parameters, codec)
        cuts.append(
            Cut(
                layer=layer,
                shape=end.shape,
                operator=end.operator,
                after_relu=end.after_relu,
                good=end.operator in ENDS or layer in blocks,
                parameters_before=parameters[0],
                parameters_after=parameters[1],
                flops_before=sum(node.flops for node in front),
                flops_after=sum(node.flops for node in back),
                raw_bytes=None if refusal else 4 * math.prod(end.shape),
                coded_bytes=None if refusal else codec.formula_bits(end.shape) / 8,
                refusal=refusal,
            )
        )
    return cuts


def chosen(
    table: Sequence[Cut], default: str | None, layers: Sequence[str] = (), everything: bool = False
) -> list[Cut]:
    """The cuts of `table` worth comparing: `layers`, or `everything`, or the good ones that can be coded.

    Of cuts that pass the same shape after the same work, one: `default`, else the outermost layer. UnknownName for a
    layer that is not in `table`.
    """
    named = {cut.layer: cut for cut in table}
    for layer in layers:
        if layer not in named:
            raise UnknownName("cut", layer, named, "`edgekit cuts MODEL` lists them")
    if layers:
        return [named[layer] for layer in layers]
    groups: dict[tuple[object, ...], list[Cut]] = {}
    for cut in table:
        if everything or cut.layer == default or (cut.good and not cut.refusal):
            groups.setdefault((cut.shape, cut.parameters_before, cut.flops_before), []).append(cut)
    return [min(group, key=lambda cut: (cut.layer != default, cut.layer.count("."))) for group in groups.values()]


def _refusal(shape: tuple[int, ...], parameters: tuple[int, int], codec: FeatureCodec) -> str:
    if len(shape) != 3:
        return f"the feature is {list(shape)} an image, expected (C,h,w): cut before the head"
    for side, count in zip(("before", "behind"), parameters, strict=True):
        if not count:
            return f"no parameters lie {side} it, so one half has nothing to learn"
    try:
        codec.check(shape[0])
    except UsageError as error:
        return str(error)
    return ""
