"""build: a network and calibration images -> a bundle."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import edgekit
from edgekit import tensorfile
from edgekit.bundle import Bundle, write_bundle
from edgekit.class_names import class_names_error
from edgekit.errors import ExportError, UsageError
from edgekit.export.encoders.registry import ENCODERS
from edgekit.export.fold import is_fresh, settle_norms, state_of, with_batch_statistics
from edgekit.export.freeze import freeze_all_but
from edgekit.export.graphs import FrontGraphs, front_graphs
from edgekit.export.local_head import LocalHead
from edgekit.export.parity.golden import golden_arrays
from edgekit.export.parity.pytorch import require_pytorch
from edgekit.export.program import back_program
from edgekit.export.rate.candidates import Bench
from edgekit.export.rate.choose import choose
from edgekit.export.rate.rounds import NO_ROUNDS, Rehearsal, rehearse
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.export.significance import significance as channel_significance
from edgekit.export.split import split
from edgekit.export.targets.check import check_range, refuse
from edgekit.export.targets.learning_rules import ProviderRefusal
from edgekit.providers import AUTO, CPU, check_provider

#: What batch norm does while a front half learns: use the batch's statistics, or none, being folded into convolutions.
NORMS = ("batch", "frozen")


def build_bundle(
    path: str,
    network: Network,
    calibration: CalibrationImages,
    coding: Coding,
    board: BoardSettings = BoardSettings(),
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> Bundle:
    """The bundle of `network`, cut in two, for `board`, written to the folder `path`.

    `seed` decides the first codebooks and the local head. ExportError or UsageError when network, cut, codec and board
    do not fit together.
    """
    model, name, cut, trained_head = network
    images, mean, std, classes, labels, class_names = calibration
    codec, significance, goal = coding
    device = board.profile
    for option, values, smallest in (("mean", mean, -1e6), ("std", std, 1e-6)):
        if not all(smallest <= value <= 1e6 for value in values):
            raise UsageError(f"{option} {values}: expected numbers from {smallest:g} to 1e6")
    error = class_names_error(class_names, classes) if class_names else None
    if error is not None:
        raise UsageError(f"{error}: a bundle keeps the names of its classes, so that devices find labels by them")
    front, back = split(copy.deepcopy(model), cut)
    # Statistics that never moved are not worth freezing: devices would drift apart (docs/decisions.md).
    norm = board.norm or ("batch" if is_fresh(front) else device.target.norm)
    if norm not in NORMS:
        raise UsageError(f"norm policy '{norm}': expected one of {', '.join(NORMS)}")
    check_provider(board.provider)
    scale = np.array(std, dtype=np.float32).reshape(-1, 1, 1)
    batch = (images.astype(np.float32) / 255 - np.array(mean, dtype=np.float32).reshape(-1, 1, 1)) / scale
    _require_same(copy.deepcopy(model), front, back, torch.from_numpy(batch[:2]))
    if norm == "frozen" or board.train_layers:
        settle_norms(front, torch.from_numpy(batch))
    if board.train_layers:
        freeze_all_but(front, board.train_layers)
    with torch.no_grad():
        # In mode "batch" with the batch's statistics: the running ones of an untrained network say nothing yet.
        features = (with_batch_statistics(front) if norm == "batch" else front.eval())(torch.from_numpy(batch))
    if features.ndim != 4:
        raise UsageError(f"the feature at '{cut}' is {list(features.shape)}, expected (n,C,h,w): cut before the head")
    weights = None
    if significance or codec.needs_significance:
        weights = channel_significance(significance or "gradient", back, features, labels, seed)
    head = LocalHead(features.shape[1], classes, seed, trained_head) if board.local_head else None
    chosen: dict[str, Any] = {}
    if goal:
        merged = goal.rounds.merged if goal.rounds else 0.0
        bench = Bench(goal.batch, front, back, features, labels, weights, seed, merged)
        rounds = NO_ROUNDS
        if goal.rounds is not None:
            assert labels is not None, "the bench refuses that"
            labelled = torch.from_numpy(labels.astype(np.int64))
            given = Rehearsal(front, back, torch.from_numpy(batch), labelled, goal.batch, head)
            rounds = rehearse(goal.rounds, given, norm == "frozen", seed)
        rate = choose(codec, goal, bench, rounds)
        codec, chosen = rate.codec, {"gradient": rate.gradient, "rate": rate.record}
    codec.check(features.shape[1])
    tables = codec.calibrate(features.numpy(), seed, weights)
    order = codec.order(features.shape[1], tables)
    refusal = check_range(ENCODERS[codec.codec_id].largest(codec, features.numpy()[:, order], tables), device)
    refuse([refusal] if refusal else [], f"{device.name} ({device.title})")
    shape = batch.shape[1:]

    def graphs_for(provider: str) -> FrontGraphs:
        return front_graphs(
            front, shape, codec, tables, device=device, norm=norm, batch_size=board.static_batch, provider=provider,
            head=head,
        )  # fmt: skip

    graphs, learning = _learning_on(board.provider, device.provider, graphs_for)
    golden = golden_arrays(graphs, codec, tables, batch[:4], seed)
    require_pytorch(front, norm == "frozen", golden, codec, tables, head)
    files = {
        **graphs.models,
        "front.safetensors": tensorfile.dumps(graphs.state),
        **({"local.safetensors": tensorfile.dumps(graphs.head)} if head is not None else {}),
        "tables.safetensors": tensorfile.dumps(tables),
        "back.safetensors": tensorfile.dumps(state_of(back)),
        "back_train.pt2": back_program(back.train(), features),
        "back_eval.pt2": back_program(back.eval(), features),
        "golden.safetensors": tensorfile.dumps(golden),
    }
    named = {"class_names": list(class_names)} if class_names else {}
    manifest = {
        "edgekit": edgekit.__version__,
        "model": {"name": name, "cut": cut, "input": list(shape), "classes": classes, **named},
        "feature": list(features.shape[1:]),
        "feature_tensor": graphs.feature,
        "after_relu": graphs.after_relu,
        "codec": {"id": codec.codec_id, "config": codec.config},
        "normalise": {"mean": list(mean), "std": list(std)},
        "device": device.to_json(),
        "norm": norm,
        **learning,
        "folds": [each._asdict() for each in graphs.folds],
        "batch_norms": [each._asdict() for each in graphs.batch_norms],
        "graphs": {key: spec.to_json() for key, spec in graphs.specs.items()},
        **chosen,
    }
    return write_bundle(path, manifest, files, overwrite)


def _learning_on(
    asked: str, boards: str, graphs_for: Callable[[str], FrontGraphs]
) -> tuple[FrontGraphs, dict[str, str]]:
    """The graphs for the provider `asked` for, or with "auto" for the board's, and what the manifest says of it.

    Where the board's provider does not take the graphs, they are those of the CPU, and the manifest says why.
    """
    provider = boards if asked == AUTO else asked
    try:
        return graphs_for(provider), {"provider": provider}
    except ProviderRefusal as refusal:
        if asked != AUTO:
            raise
        reason = " ".join(str(refusal).split())
        return graphs_for(CPU), {"provider": CPU, "wanted_provider": provider, "provider_reason": reason}


def _require_same(model: nn.Module, front: nn.Module, back: nn.Module, images: torch.Tensor) -> None:
    """ExportError unless the halves compute what `model` computes: torch.fx misses some statements in place."""
    with torch.no_grad():
        expected, got = model.eval()(images), back.eval()(front.eval()(images))
    if not torch.isfinite(expected).all():
        raise ExportError(
            f"{type(model).__name__} gives values that are not finite for the calibration images: look at its "
            "weights, and at mean and std"
        )
    if not torch.allclose(expected, got, rtol=1e-3, atol=1e-4 * float(expected.abs().max() + 1)):
        apart = float((expected - got).abs().max())
        raise ExportError(
            f"the two halves of {type(model).__name__} give other outputs than the whole, up to {apart:.3g} apart: "
            "torch.fx lost a statement that changes a tensor in place, as in `z = y; y += x`; write `y = y + x` instead"
        )
