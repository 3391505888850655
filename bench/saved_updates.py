"""Weight updates of real training: what an epoch changed, by name; and the levels that codecs of updates make of them.

``python bench/saved_updates.py --data DIR --out FILE``: trains vgg11_thin from fresh weights by PyTorch on CIFAR-10,
once by SGD and once by Adam. What the first and the last epoch changed goes to FILE, an .npz of float32 arrays called
RUN/NAME ("sgd, epoch 1/features.0.weight").
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from arguments import Arguments
from torch import nn

from edgekit.data import images, registry
from edgekit.export.models.registry import build
from edgekit.runtime.front import normalise

Update = dict[str, np.ndarray]

MODEL, BATCH = "vgg11_thin", 32
#: What makes the optimizer of all weights.
OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, 0.02, 0.9, weight_decay=5e-4),
    "adam": lambda weights: torch.optim.Adam(weights, 1e-3),
}
#: FSFL's steps (Becking et al. 2022, arXiv:2204.04424) of weights, and of all arrays of one dimension.
STEP, FINE_STEP = 4.88e-4, 2.38e-6
#: The widths of the thresholds in FSFL's equations 2 and 3.
DELTA, GAMMA = 1.0, 0.9


def trained(optimizer: str, data: str, limit: int, epochs: int, model: str = MODEL) -> Iterator[tuple[int, Update]]:
    """Every epoch's number and update."""
    shape = (3, 32, 32)
    dataset = images.fit(registry.load("cifar10", data, limit, 0), shape)
    mean, std = (np.array(values, dtype=np.float32) for values in (dataset.mean, dataset.std))
    given = torch.from_numpy(normalise(dataset.train_images, mean, std))
    labels = torch.from_numpy(dataset.train_labels.astype(np.int64))
    network = build(model, shape, len(dataset.classes), 0).train()
    made = OPTIMIZERS[optimizer](network.parameters())
    torch.manual_seed(0)
    for epoch in range(1, epochs + 1):
        before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        order = torch.randperm(len(given))
        for start in range(0, len(given), BATCH):
            batch = order[start : start + BATCH]
            made.zero_grad()
            loss = nn.functional.cross_entropy(network(given[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            made.step()
        yield epoch, {name: (weight.detach() - before[name]).numpy() for name, weight in network.named_parameters()}


def steps(update: Update) -> Update:
    """All of it in FSFL's steps: (…) int64 levels by name."""
    return {
        name: np.rint(values.astype(np.float64) / (STEP if values.ndim > 1 else FINE_STEP)).astype(np.int64)
        for name, values in update.items()
    }


def thresholds(update: Update) -> Update:
    """Weights beyond the thresholds of FSFL's equations 2 (single values) and 3 (filters), in its steps."""
    kept = {}
    for name, values in update.items():
        if values.ndim > 1:
            spread = DELTA * values.std()
            least = max(abs(values.mean() - spread), abs(values.mean() + spread), STEP / 2)
            means = np.abs(values.reshape(len(values), -1).mean(axis=1))
            active = (means >= GAMMA * means.mean()).reshape(-1, *[1] * (values.ndim - 1))
            values = values * (np.abs(values) >= least) * active
        kept[name] = values
    return steps(kept)


def largest(update: Update, share: float) -> Update:
    """The largest `share` of all weights, and whole biases and norms, in FSFL's steps."""
    least = _least(np.concatenate([values.reshape(-1) for values in update.values() if values.ndim > 1]), share)
    return steps({name: values * (np.abs(values) >= (values.ndim > 1) * least) for name, values in update.items()})


def intervals(update: Update, share: float) -> Update:
    """The largest `share` of all values, in 8 levels between the least and the largest of them, as in DHQC."""
    every = np.concatenate([values.reshape(-1) for values in update.values()])
    least, most = _least(every, share), float(np.abs(every).max())
    found = {}
    for name, values in update.items():
        sizes = np.abs(values).astype(np.float64)
        levels = 1 + np.minimum(8 * (sizes - least) / (most - least), 7).astype(np.int64)
        found[name] = np.sign(values).astype(np.int64) * levels * (sizes >= least)
    return found


def _least(values: np.ndarray, share: float) -> float:
    """The magnitude that this share of `values` has at least."""
    kept = max(int(share * values.size), 1)
    return float(np.partition(np.abs(values), -kept)[-kept])


#: Integer levels (…) int64 of an update, by name, in the ways that codecs of updates choose them.
LEVELS: dict[str, Callable[[Update], Update]] = {
    "all": steps,
    "equations 2 and 3": thresholds,
    "96 % zero": lambda update: largest(update, 0.04),
    "99 % zero": lambda update: largest(update, 0.01),
    "1 % in 8 levels": lambda update: intervals(update, 0.01),
}


def read(path: str) -> dict[str, Update]:
    """The updates of the file `path`, by run."""
    found: dict[str, Update] = {}
    with np.load(path) as saved:
        for key in saved.files:
            run, name = key.split("/")
            found.setdefault(run, {})[name] = saved[key]
    return found


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("CIFAR-10, binary version", data=None)
    arguments.add(limit=2000, epochs=4)
    arguments.add("where the updates go", out="updates.npz")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    kept = {}
    for optimizer in OPTIMIZERS:
        for epoch, update in trained(optimizer, options.data, options.limit, options.epochs):
            sys.stderr.write(f"{optimizer}: epoch {epoch} of {options.epochs}\n")
            if epoch in (1, options.epochs):
                kept.update({f"{optimizer}, epoch {epoch}/{name}": values for name, values in update.items()})
    np.savez(options.out, **kept)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
