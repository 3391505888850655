"""fold: a front half without batch norm, which is what accelerators want and what "frozen" trains."""

import copy
from collections import Counter

import torch
from torch import fx, nn

from edgekit.codecs.base import Arrays
from edgekit.errors import ExportError
from edgekit.folding import Fold, fold


def state_of(half: nn.Module) -> Arrays:
    """Weights and buffers by their PyTorch names."""
    return {name: value.detach().numpy() for name, value in half.state_dict().items()}


def fold_norms(front: nn.Module) -> tuple[fx.GraphModule, list[Fold]]:
    """`front`, as it computes in evaluation mode, with every BatchNorm2d folded into convolutions; and what was folded.

    `front` itself is unchanged. Folded weights keep the convolution's names, so `fold` gives new ones at any time.
    """
    folded = copy.deepcopy(front) if isinstance(front, fx.GraphModule) else fx.symbolic_trace(copy.deepcopy(front))
    folded.eval()
    modules = dict(folded.named_modules())
    calls = Counter(node.target for node in folded.graph.nodes if node.op == "call_module")
    folds = []
    for node in list(folded.graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        _check(node.target, norm)
        before = node.args[0]
        source = modules.get(before.target) if before.op == "call_module" else None
        alone = not (
            isinstance(source, nn.Conv2d) and calls[before.target] == calls[node.target] == len(before.users) == 1
        )
        each = Fold("" if alone else before.target, node.target, norm.eps)
        if alone:
            channels = norm.num_features
            folded.set_submodule(each.into, nn.Conv2d(channels, channels, 1, groups=channels).eval())
        else:
            assert isinstance(source, nn.Conv2d)
            if source.bias is None:
                source.bias = nn.Parameter(torch.zeros(source.out_channels))
            node.replace_all_uses_with(before)
            folded.graph.erase_node(node)
            folded.delete_submodule(each.norm)
        if each not in folds:
            folds.append(each)
    folded.recompile()
    new = {name: torch.from_numpy(value) for name, value in fold(state_of(front), folds).items()}
    folded.load_state_dict(new, strict=False)
    return folded, folds


def settle_norms(front: nn.Module, images: torch.Tensor) -> None:
    """Gives batch norms whose running statistics never moved those of `images` (n,C,H,W) f32, in place.

    Folding them before would fold nothing in: a network with fresh weights would train without any normalisation.
    """
    fresh = [
        norm
        for norm in front.modules()
        if isinstance(norm, nn.BatchNorm2d)
        and norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all())
    ]
    if not fresh:
        return
    front.eval()
    momenta = [norm.momentum for norm in fresh]
    for norm in fresh:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        front(images)
    for norm, momentum in zip(fresh, momenta, strict=True):
        norm.momentum = momentum


def _check(layer: str, norm: nn.BatchNorm2d) -> None:
    if not norm.affine or not norm.track_running_stats:
        raise ExportError(f"layer '{layer}': batch norm needs affine=True and track_running_stats=True to be folded")
