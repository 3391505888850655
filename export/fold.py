"""Folds batch norms into convolutions, for the deployed graph and for the norm policy "frozen"."""

import copy
from collections import Counter

import torch
from torch import fx, nn

from edgekit.codecs.base import Arrays
from edgekit.errors import ExportError
from edgekit.folding import Fold, fold


def state_of(half: nn.Module) -> Arrays:
    """Weights and buffers by their PyTorch names; a shared one is there once, under its first name."""
    first = {name for name, _ in [*half.named_parameters(), *half.named_buffers()]}
    return {name: value.detach().numpy() for name, value in half.state_dict().items() if name in first}


def with_batch_statistics(front: nn.Module) -> nn.Module:
    """A copy of `front` whose batch norms use the batch's statistics; its other layers are in evaluation mode."""
    twin = copy.deepcopy(front).eval()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    return twin


def fold_norms(front: nn.Module) -> tuple[fx.GraphModule, list[Fold]]:
    """A copy of `front`, in evaluation mode, with every BatchNorm2d folded into a convolution; and the list of folds.

    `front` itself is unchanged. Folded weights keep the convolution's names, so `edgekit.folding.fold` can
    compute new values of them at any time.
    """
    folded = copy.deepcopy(front) if isinstance(front, fx.GraphModule) else fx.symbolic_trace(copy.deepcopy(front))
    folded.eval()
    modules = dict(folded.named_modules())
    calls = Counter(node.target for node in folded.graph.nodes if node.op == "call_module")
    parameters = dict(folded.named_parameters(remove_duplicate=False))
    owners = Counter(id(weight) for weight in parameters.values())
    names = {name: owners[id(weight)] for name, weight in parameters.items()}
    folds = []
    for node in list(folded.graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        _check(node.target, norm)
        before = node.args[0]
        source = modules.get(before.target) if before.op == "call_module" else None
        once = calls[before.target] == calls[node.target] == len(before.users) == 1
        # A weight that is shared, or made from others as weight_norm's is, cannot take a value of its own.
        own = names.get(f"{before.target}.weight") == 1
        alone = not (isinstance(source, nn.Conv2d) and once and own)
        each = Fold("" if alone else before.target, node.target, norm.eps)
        if alone:
            channels = norm.num_features
            scaling = nn.Conv2d(channels, channels, 1, groups=channels).eval()
            folded.set_submodule(each.into, scaling.requires_grad_(norm.weight.requires_grad))
        else:
            assert isinstance(source, nn.Conv2d)
            if source.bias is None:
                source.bias = nn.Parameter(torch.zeros(source.out_channels), norm.bias.requires_grad)
            node.replace_all_uses_with(before)
            folded.graph.erase_node(node)
            folded.delete_submodule(each.norm)
        if each not in folds:
            folds.append(each)
    folded.recompile()
    new = {name: torch.from_numpy(value) for name, value in fold(state_of(front), folds).items()}
    folded.load_state_dict(new, strict=False)
    return folded, folds


def is_fresh(front: nn.Module) -> bool:
    """Whether `front` has batch norms, all with the running statistics that they start with: it was never trained."""
    fresh = fresh_norms(front)
    return bool(fresh) and len(fresh) == sum(isinstance(module, nn.BatchNorm2d) for module in front.modules())


def fresh_norms(front: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of `front` with the running statistics that they start with: mean 0, variance 1."""
    return [
        norm
        for norm in front.modules()
        if isinstance(norm, nn.BatchNorm2d)
        and norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and torch.equal(norm.running_var, torch.ones_like(norm.running_var))
    ]


def settle_norms(front: nn.Module, images: torch.Tensor) -> None:
    """Gives the fresh batch norms of `front` the statistics of `images` (n,C,H,W) f32, in place.

    Folded as they start, with mean 0 and variance 1, they would leave a network that trains without normalisation.
    """
    fresh = fresh_norms(front)
    momenta = [norm.momentum for norm in fresh]
    front.eval()
    for norm in fresh:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        front(images)
    for norm, momentum in zip(fresh, momenta, strict=True):
        norm.momentum = momentum


def _check(layer: str, norm: nn.BatchNorm2d) -> None:
    if not norm.affine or not norm.track_running_stats:
        raise ExportError(
            f"layer '{layer}': batch norm needs affine=True and track_running_stats=True to be folded: a "
            "weight of ones and a bias of zeros compute the same as none"
        )
