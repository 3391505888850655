"""Freezes the first layers of a front half, so that only its last ones learn: for boards that can do no more.

Gradients are computed back to the first layer that learns, so a device saves the passes before it and the memory for
their activations, and rounds send only the weights that learn. Weights with ``requires_grad=False`` are frozen alike.
"""

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase

from edgekit.errors import UsageError

#: Layers that only scale or shift what the layer before them computes: frozen, or learning, together with it.
WITH_THE_ONE_BEFORE = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm on its running statistics, which never move, while the layers around it learn."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        return super().train(False)


def freeze_all_but(front: fx.GraphModule, last: int) -> None:
    """Freezes `front`, in place, all but its `last` layers, counted in the order of computation.

    A layer is what has weights, such as a convolution, with the batch norm behind it. UsageError when `front` has
    fewer.
    """
    layers = _layers(front)
    if not 1 <= last <= len(layers):
        names = ", ".join(layer[0].rpartition(".")[0] for layer in layers)
        raise UsageError(f"{last} layers that learn: expected 1 to {len(layers)}, the front half has {names}")
    learning = {name for layer in layers[-last:] for name in layer}
    for name, weight in front.named_parameters():
        weight.requires_grad_(name in learning and weight.requires_grad)
    for name, module in list(front.named_modules()):
        if type(module) is nn.BatchNorm2d and f"{name}.weight" not in learning:
            front.set_submodule(name, _frozen(module))


def frozen_names(front: nn.Module) -> set[str]:
    """The weights and buffers of `front` that never change, by name."""
    names = {name for name, weight in front.named_parameters() if not weight.requires_grad}
    for layer, module in front.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            names.update(f"{layer}.{name}" for name, _ in module.named_buffers())
    return names


def _layers(front: fx.GraphModule) -> list[list[str]]:
    """The names of each layer's weights, in the order in which layers are last computed."""
    layers: list[list[str]] = []
    owners: dict[fx.Node, list[str]] = {}
    modules = dict(front.named_modules())
    calls = {node.target: node for node in front.graph.nodes if node.op in ("call_module", "get_attr")}
    last = set(calls.values())
    parameters = dict(front.named_parameters())
    for node in front.graph.nodes:
        if node not in last:
            continue
        module = modules.get(str(node.target))
        inside = [] if module is None else [f"{node.target}.{name}" for name, _ in module.named_parameters()]
        names = [name for name in inside or [str(node.target)] if name in parameters]
        # A scale or a bias that forward reads by itself goes with the layer before, as norms do.
        own = not isinstance(module, WITH_THE_ONE_BEFORE) if module else any(parameters[n].ndim > 1 for n in names)
        if not names:
            continue
        if own or not layers:
            layers.append([])
        source = node.args[0] if node.args and not own else None
        owners[node] = owners.get(source, layers[-1]) if isinstance(source, fx.Node) else layers[-1]
        owners[node] += names
    return layers


def _frozen(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    twin = FrozenBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin.load_state_dict(norm.state_dict())
    for name, weight in twin.named_parameters():
        weight.requires_grad_(norm.get_parameter(name).requires_grad)
    return twin.eval()
