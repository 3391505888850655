"""How much each channel of the feature matters to the loss, from labelled calibration data.

Two measures: the energy of the loss's gradient, which costs one backward pass; and the SGQ paper's own form, a
squeeze-and-excite gate (Hu et al., 2018) learned between the frozen halves of the network.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from edgekit.errors import UnknownName, UsageError
from edgekit.export.fold import is_fresh, with_batch_statistics

#: Images that go through the back half at once.
BATCH = 32
#: Steps of Adam that a gate learns for, and its learning rate.
STEPS, RATE = 60, 0.01
#: What the mean gate costs beside the loss: without a cost, a channel that changes nothing would stay half open.
COST = 0.3
#: The squeeze: hidden units per channel.
HIDDEN = 1 / 8


class Gate(nn.Module):
    """(n,C) gates of 0 to 1 from a feature (n,C,h,w): pool, squeeze, excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, int(channels * HIDDEN))
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        nn.init.zeros_(self.excite.weight)  # half open for every feature

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        pooled = feature.mean(dim=(2, 3))
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))


def gradient_energy(back: nn.Module, features: torch.Tensor, labels: torch.Tensor, seed: int = 0) -> np.ndarray:
    """(C,) f32 mean square of d loss / d feature (n,C,h,w), over images and positions. `seed` is not used."""
    pieces = -(-len(features) // BATCH)
    energy = torch.zeros(features.shape[1])
    for some, of in zip(features.detach().tensor_split(pieces), labels.tensor_split(pieces), strict=True):
        feature = some.clone().requires_grad_()
        # The sum: the loss of one image does not depend on how many others there are.
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(back(feature), of, reduction="sum"), feature)
        energy += (gradient**2).sum(dim=(0, 2, 3))
    return np.asarray((energy / features[:, 0].numel()).numpy(), dtype=np.float32)


def gate_opening(back: nn.Module, features: torch.Tensor, labels: torch.Tensor, seed: int = 0) -> np.ndarray:
    """(C,) f32 mean gate of each channel, 0 to 1, once a `Gate` before `back` has learned; `back` does not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gate = Gate(features.shape[1])
    features = features.detach()
    scale = features.std().clamp_min(1e-12)  # a gate learns alike whatever the units of the feature
    optimizer = torch.optim.Adam(gate.parameters(), RATE)
    for _ in range(STEPS):
        chosen = torch.randint(len(features), (min(BATCH, len(features)),), generator=generator)
        opened = gate(features[chosen] / scale)
        # Times 2: a gate that is half open passes the feature unchanged.
        loss = nn.functional.cross_entropy(back(features[chosen] * 2 * opened[:, :, None, None]), labels[chosen])
        optimizer.zero_grad()
        (loss + COST * opened.mean()).backward(inputs=list(gate.parameters()))
        optimizer.step()
    with torch.no_grad():
        return np.asarray(gate(features / scale).mean(dim=0).numpy(), dtype=np.float32)


def significance(
    measure: str, back: nn.Module, features: torch.Tensor, labels: np.ndarray | None, seed: int
) -> np.ndarray:
    """(C,) f32 significance of the channels of `features` (n,C,h,w) by `measure`, one of `SIGNIFICANCE`.

    `labels` (n,) are those of the images that the features come from; UsageError without. `back` is left as it is.
    """
    if measure not in SIGNIFICANCE:
        raise UnknownName("significance", measure, SIGNIFICANCE, f"there are: {', '.join(SIGNIFICANCE)}")
    if labels is None or len(labels) != len(features):
        raise UsageError(
            f"the significance of channels is measured on the loss: {0 if labels is None else len(labels)} labels for "
            f"{len(features)} calibration images, expected one each; give `labels`, or choose the grouping spectral or "
            "contiguous, not weighted"
        )
    # Running statistics that a batch norm starts with say nothing about these features.
    ready = with_batch_statistics(back) if is_fresh(back) else copy.deepcopy(back).eval()
    return SIGNIFICANCE[measure](ready, features, torch.from_numpy(labels.astype(np.int64)), seed)


#: Measure by name.
SIGNIFICANCE: dict[str, Callable[[nn.Module, torch.Tensor, torch.Tensor, int], np.ndarray]] = {
    "gradient": gradient_energy,
    "gate": gate_opening,
}
