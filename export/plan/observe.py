"""What cuts cost apart from board and link: counted work, sizes of coded frames, times measured on this host."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from edgekit.codecs.base import FeatureCodec
from edgekit.data.base import Dataset
from edgekit.data.images import fit
from edgekit.device_profiles.profile import Profile
from edgekit.errors import ExportError, UsageError
from edgekit.export.fold import fold_norms, with_batch_statistics
from edgekit.export.frames import frames, quick_tables
from edgekit.export.graphs import deployed_graph, front_graphs
from edgekit.export.plan.cuts import Cut
from edgekit.export.plan.roofline import encoder_work
from edgekit.export.plan.stopwatch import FrontTime, front_time, server_seconds
from edgekit.export.plan.work import NetworkWork, Work, network_work
from edgekit.export.split import split


class Trial(NamedTuple):
    """What cuts are tried with. `images` (n,C,H,W) f32, normalised, are one batch."""

    images: np.ndarray
    classes: int
    codec: FeatureCodec
    #: Boards whose converters have to take the deployed graph, and the norm policy of the graphs that learn.
    boards: Sequence[Profile] = ()
    norm: str = "batch"
    #: Whether front halves are timed.
    measure: bool = False
    #: Where the server's half is timed.
    server: torch.device = torch.device("cpu")
    seed: int = 0


class Observed(NamedTuple):
    """What one cut costs, for one batch."""

    cut: Cut
    batch: int
    #: Nodes of the front half, and its quantise stage.
    front: list[Work]
    #: Whole frames, really coded; bytes.
    frame_up: int
    frame_down: int
    #: Bytes per image of the feature, by formula.
    formula_up: float
    server_s: float
    front_time: FrontTime | None


def observe(
    network: nn.Module, cuts: Sequence[Cut], trial: Trial, on_cut: Callable[[str], None] = lambda layer: None
) -> tuple[list[Observed], dict[str, str]]:
    """What each of `cuts` that can be used costs; and, by layer, why the others cannot.

    `on_cut` is called with a layer before it is worked on. `network` stays as it was.
    """
    work = network_work(network, trial.images.shape[1:], len(trial.images))
    observed, refused = [], {}
    for cut in cuts:
        on_cut(cut.layer)
        if cut.refusal:
            refused[cut.layer] = cut.refusal
            continue
        try:
            observed.append(_observe(network, cut, work, trial))
        except ExportError as error:
            refused[cut.layer] = str(error)
    return observed, refused


def sample_images(shape: tuple[int, int, int], batch: int, seed: int, dataset: Dataset | None) -> np.ndarray:
    """(batch,C,H,W) f32: training images of `dataset`, drawn by `seed` and normalised; without one, random normal."""
    if batch < 2:
        raise UsageError(f"a batch of {batch} images: expected at least 2")
    rng = np.random.default_rng(seed)
    if dataset is None:
        return rng.standard_normal((batch, *shape), dtype=np.float32)
    chosen = rng.permutation(len(dataset.train_images))[:batch]
    if len(chosen) < batch:
        raise UsageError(
            f"{dataset.name} has {len(chosen)} training images, a batch of {batch} was asked: lower --batch"
        )
    fitted = fit(dataset._replace(train_images=dataset.train_images[chosen]), shape)
    mean, std = (np.array(values, dtype=np.float32).reshape(-1, 1, 1) for values in (fitted.mean, fitted.std))
    return np.asarray((fitted.train_images.astype(np.float32) / 255 - mean) / std)


def _observe(network: nn.Module, cut: Cut, work: NetworkWork, trial: Trial) -> Observed:
    images, codec = trial.images, trial.codec
    front, back = split(network, cut.layer)
    with torch.no_grad():
        learning = with_batch_statistics(front) if trial.norm == "batch" else front.eval()
        feature = learning(torch.from_numpy(images)).numpy()
    tables = quick_tables(codec, feature, trial.seed)
    sent = frames(codec, tables, feature, trial.classes, trial.seed)
    for board in trial.boards:
        deployed_graph(fold_norms(front)[0], images.shape[1:], codec, tables, board, len(images))
    timed = None
    if trial.measure:
        graphs = front_graphs(front, images.shape[1:], codec, tables, norm=trial.norm)
        timed = front_time(graphs, codec, tables, sent, images)
    return Observed(
        cut=cut,
        batch=len(images),
        front=[*work.halves(cut.layer)[0], encoder_work(codec, cut.shape, len(images))],
        frame_up=sent.frame_up,
        frame_down=sent.frame_down,
        formula_up=codec.formula_bits(cut.shape) / 8,
        server_s=server_seconds(back, sent, trial.classes, trial.server),
        front_time=timed,
    )
