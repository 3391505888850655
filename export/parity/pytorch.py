"""Compares golden data with the network in PyTorch, and so finds faults of the graphs that all engines share."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from edgekit.bundle import HEAD
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.errors import ExportError
from edgekit.export.fold import fold_norms, with_batch_statistics
from edgekit.export.local_head import LocalHead
from edgekit.export.parity.report import Check, equal_codes, worst_gradient

#: Smallest share of equal codes of one engine and PyTorch, both in float32: rounding flips a near tie now and then.
CODES = 0.99
REMEDY = (
    "the graphs do not express this network. Known causes: hooks on a layer, weights that a layer shares with another "
    "or that forward reads besides; take them out of the front half, or cut before"
)


def against_pytorch(
    front: nn.Module,
    frozen: bool,
    golden: Arrays,
    codec: FeatureCodec,
    tables: Arrays,
    head: LocalHead | None = None,
) -> Iterator[Check]:
    """Golden codes and gradients compared with those of `front`, which has the weights that they were made with.

    Deployed codes are held to `front` itself in evaluation mode, gradients to autograd: of `front` with the batch's
    statistics, or of its folded form when `frozen`. With `head` its gradients are too, those of the weights and that
    at the feature.
    """
    image = torch.from_numpy(golden["image"])
    learning = fold_norms(front)[0] if frozen else with_batch_statistics(front)
    with torch.no_grad():
        deployed = front.eval()(image)
    order = torch.from_numpy(codec.order(deployed.shape[1], tables))
    training = learning(image)[:, order]
    if head is not None:
        yield worst_gradient("local gradient, PyTorch", golden, local_gradients(head, training, order, golden), REMEDY)
    training.backward(torch.from_numpy(golden["gradient"]))
    for graph, feature in (("deployed", deployed[:, order]), ("training", training)):
        for name, codes in codec.quantize(np.ascontiguousarray(feature.detach().numpy()), tables).items():
            yield equal_codes(f"{graph} {name}, PyTorch", golden[f"{graph}.{name}"], codes, CODES, REMEDY)
    computed = {key: array for key, array in golden.items() if key.startswith("gradient.")}
    expected = {f"gradient.{name}": w.grad.numpy() for name, w in learning.named_parameters() if w.grad is not None}
    yield worst_gradient("gradient, PyTorch", computed, {key: expected[key] for key in computed}, REMEDY)


def local_gradients(head: LocalHead, feature: torch.Tensor, order: torch.Tensor, golden: Arrays) -> Arrays:
    """What autograd gives for the local loss of `feature` (n,C,h,w), channels in coded `order`, by golden names."""
    leaf = feature.detach().requires_grad_()
    loss = nn.functional.cross_entropy(head(leaf[:, order.argsort()]), torch.from_numpy(golden["labels"]))
    names = [name for name, _ in head.named_parameters()]
    at_cut, *of_weights = torch.autograd.grad(loss, [leaf, *head.parameters()])
    weights = {f"local.gradient.{HEAD}{name}": g.numpy() for name, g in zip(names, of_weights, strict=True)}
    return {"local.loss": loss.detach().reshape(1).numpy(), "local.gradient": at_cut.numpy(), **weights}


def require_pytorch(
    front: nn.Module, frozen: bool, golden: Arrays, codec: FeatureCodec, tables: Arrays, head: LocalHead | None = None
) -> None:
    """ExportError with the first comparison of `against_pytorch` that fails, if one does."""
    for check in against_pytorch(front, frozen, golden, codec, tables, head):
        if not check.passed:
            raise ExportError(f"{check.name}: got {check.got}, expected {check.expected}: {check.remedy}")
