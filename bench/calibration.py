"""What compressing the gradient at the cut does to the gradient of the front half's weights.

\b
python bench/calibration.py vgg11_thin --cut features.10 --data DIR [--out FILE]
python bench/calibration.py --show FILE... [--accuracy FILE]

Trains in one process and probes at three stages. A probe takes batches of training images; the reference is the
gradient of the front half's weights without any codec. Then the features are coded, and the server's gradient at the
decoded feature is sent back as it is ("decode only") and by every method. Columns of the table, means over batches:

\b
bytes      of the gradient's frame, per image
deviation  of what arrives from what was sent, at the cut: length of the difference over length
cosine     of the weights' gradient with the reference, and
error      length of its difference from the reference over the reference's
estimate   what the server estimates of "added", by which it keeps a bound (edgekit/server/bound.py)
added      the same against "decode only": what the method itself does
averaged   `added` when one batch is sent eight times and averaged: about a third of it unless the method is biased
accuracy   after a whole training with the method, where `--accuracy` has it

Several figures in a cell are those of the stages.

A method is a policy of `edgekit train --gradient-codec`, with settings as in "sparse-masked:step=14".
"""

import argparse
import copy
import sys
from collections.abc import Iterator
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from torch.nn.functional import cross_entropy
from trainer import Plan, Trainer

from edgekit.codecs.gradients.sparse import Sparse
from edgekit.data import registry
from edgekit.export.frames import gradient_bytes
from edgekit.server.bound import Fineness, error_of
from edgekit.server.calibrate import Calibrator, calibrator
from edgekit.server.decode import decode, to_network_order

#: Suffix of a "sparse" method's name: the same without systematic rounding, which shows what that is worth.
ALONE = "rounded one by one"
METHODS = (
    "none",
    "masked",
    "stochastic",
    "stochastic-masked",
    "sparse:step=0.142857,of=largest",
    "ternary",
    "sparse:step=1,of=largest",
    f"sparse:step=10 {ALONE}",
    *(f"sparse:step={step}" for step in (5, 10, 20)),
    *(f"sparse-masked:step={step}" for step in (3, 5, 7, 10, 14, 20)),
    *(f"dct:zone={zone}" for zone in (0.5, 1, 1.5, 2, 3)),
    *(f"dct:bound={bound}" for bound in (0.25, 0.5, 1)),
    "dct-masked:zone=2",
    *(f"vq:groups={groups}" for groups in (2, 4, 8)),
    "vq:groups=4,exact=false",
    "residual",
    "sampled-masked",
)
DECODE_ONLY = "decode only"
COLUMNS = ("bytes", "deviation", "cosine", "error", "added", "estimate", "averaged")
#: How many times one batch is sent for the column "averaged".
DRAWS = 8


class Independent(Sparse):
    """The codec "sparse" with independent stochastic rounding of every element, in the place of systematic rounding."""

    @staticmethod
    def rounded(scaled: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.floor(scaled + rng.random(scaled.shape)).astype(np.int32)


def method(name: str, seed: int) -> Calibrator:
    """The calibrator for the method called `name`."""
    policy, alone, _ = name.partition(" " + ALONE)
    chosen = calibrator(policy, seed)
    return Calibrator(Independent(**chosen.codec.config), chosen.masked, seed) if alone else chosen


class Batch:
    """One probe batch: the front half's graph, and the gradient at the cut for what was decoded."""

    def __init__(self, trainer: Trainer, chosen: np.ndarray) -> None:
        front = trainer.front
        self._back = trainer.back
        self._weights = [weight for weight in front.module.parameters() if weight.requires_grad]
        labels = torch.from_numpy(trainer.data.train_labels[chosen])
        self._output = front.output(front.normalise(trainer.data.train_images[chosen]))
        self._order = front.codec.order(trainer.shape[0], front.tables)
        feature = np.ascontiguousarray(self._output.detach().numpy()[:, self._order])
        codes = front.codec.quantize(feature, front.tables)
        self._active = front.codec.active(codes, front.tables)
        coded = decode(front.codec, codes, front.tables, torch.device("cpu"))
        self._decoded = coded
        self.gradient = self._at_cut(coded, labels)
        #: The gradient of all weights in a row, computed from the feature without any codec.
        self._reference = self._of_weights(self._at_cut(torch.from_numpy(feature), labels))
        self._decode_only = self._of_weights(self.gradient)

    def _at_cut(self, coded: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
        """(n,C,h,w) gradient of the loss, channels in coded order."""
        leaf = coded.clone().requires_grad_()
        with torch.random.fork_rng():
            # The same seed each time, so that dropout drops the same units for every gradient of this batch.
            torch.manual_seed(0)
            loss = cross_entropy(self._back(to_network_order(leaf, self._order)), labels)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return np.ascontiguousarray(gradient.numpy())

    def _of_weights(self, gradient: np.ndarray) -> np.ndarray:
        """(weights,) float64 gradient that the device computes from `gradient` at the cut."""
        at_output = torch.from_numpy(np.ascontiguousarray(gradient[:, np.argsort(self._order)]))
        parts = torch.autograd.grad(self._output, self._weights, at_output, retain_graph=True)
        return np.concatenate([part.numpy().reshape(-1) for part in parts]).astype(np.float64)

    def sent(
        self, method: Calibrator, fineness: Fineness, session: int, step: int
    ) -> tuple[bytes, dict[str, float], np.ndarray]:
        """The message by `method`, what the server says of it, and what arrives of the gradient at the cut."""
        active = self._active if method.masked else None
        if method.bound is None:
            payload, deviation = method.send(self.gradient, active, session, step)
        else:
            payload, deviation, _ = fineness.send(method, self.gradient, active, self._decoded, session, step)
        arrived = method.codec.unpack(payload, self.gradient.shape, active)
        return (
            payload,
            {"deviation": deviation, "estimate": error_of(self.gradient, arrived, self._decoded.numpy())},
            arrived,
        )

    def figures(self, arrived: np.ndarray) -> dict[str, float]:
        """The columns about the weights' gradient, where `arrived` is the gradient at the cut."""
        got = self._of_weights(arrived)
        return {
            "cosine": cosine(got, self._reference),
            "error": distance(got, self._reference),
            "added": distance(got, self._decode_only),
        }


def probe(trainer: Trainer, chosen: Iterator[np.ndarray], methods: list[str], seed: int) -> dict[str, dict[str, float]]:
    """Method -> column -> figure. The trainer's state is restored afterwards."""
    halves = (trainer.front.module, trainer.back)
    states = [copy.deepcopy(half.state_dict()) for half in halves]
    calibrators = {name: (method(name, seed), Fineness()) for name in methods}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in (DECODE_ONLY, *methods)}
    averaged = {DECODE_ONLY: 0.0}
    for step, indices in enumerate(chosen):
        batch = Batch(trainer, indices)
        rows[DECODE_ONLY].append({"bytes": 0.0, "deviation": 0.0, "estimate": 0.0, **batch.figures(batch.gradient)})
        for name, (sender, fineness) in calibrators.items():
            if step == 0:
                # Each with the zone that the batch is sent with.
                draws = (batch.sent(sender, copy.copy(fineness), 2, draw) for draw in range(DRAWS))
                mean = np.mean([arrived for *_, arrived in draws], axis=0)
                averaged[name] = batch.figures(mean)["added"]
            payload, told, arrived = batch.sent(sender, fineness, 1, step)
            rows[name].append({"bytes": gradient_bytes(payload) / len(indices), **told, **batch.figures(arrived)})
    for half, state in zip(halves, states, strict=True):
        half.load_state_dict(state)
    means = {name: {key: float(np.mean([row[key] for row in each])) for key in each[0]} for name, each in rows.items()}
    return {name: {**each, "averaged": averaged[name]} for name, each in means.items()}


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-30))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Length of the difference over that of `second`."""
    return float(np.linalg.norm(first - second)) / max(float(np.linalg.norm(second)), 1e-30)


def study(options: argparse.Namespace) -> dict[str, Any]:
    """The record: trains, and probes after the epochs `--stages`."""
    stages = [int(stage) for stage in options.stages.split(",")]
    dataset = registry.load(options.dataset, options.data, None, options.seed)
    codec = {"groups": options.groups, "bits": options.bits}
    plan = Plan(
        options.model, options.cut, "sgq", codec, options.train_with, options.seed, max(stages), options.batch,
        options.lr, augment=True, every=max(stages),
    )  # fmt: skip
    rng = np.random.default_rng(options.seed)
    images = rng.permutation(len(dataset.train_labels))[: options.steps * options.batch]
    made: dict[str, Any] = {
        **record.head("torch", "numpy"),
        "plan": plan._asdict(),
        "dataset": options.dataset,
        "images_per_epoch": len(images),
        "probe_batches": options.batches,
        "stages": [],
    }

    def on_epoch(line: dict[str, Any]) -> None:
        epoch = line["epoch"]
        sys.stderr.write(f"{options.model} epoch {epoch}: loss {line['loss']:.3f}\n")
        if epoch in stages:
            draws = np.random.default_rng((options.seed, epoch))
            chosen = (draws.choice(len(dataset.train_labels), options.batch, False) for _ in range(options.batches))
            rows = probe(trainer, chosen, options.methods.split(";"), options.seed)
            stage = {"epoch": epoch, "images": line["images"], "loss": line["loss"], "accuracy": line.get("accuracy")}
            made["stages"].append({**stage, "rows": rows})

    trainer = Trainer(plan, dataset, images, on_epoch)
    made["feature"] = list(trainer.shape)
    trainer.run()
    return made


def table(made: dict[str, Any], accuracies: list[dict[str, Any]]) -> str:
    """Markdown: a line per method, stages in one cell; `accuracies` are rows of `bench/accuracy.py`, of one codec."""
    plan, stages = made["plan"], made["stages"]
    when = ", ".join(f"{stage['images']:,} images (loss {stage['loss']:.2f})" for stage in stages)
    rows = []
    for name in stages[0]["rows"]:
        cells = [name, *(" ".join(figure(key, stage["rows"][name][key]) for stage in stages) for key in COLUMNS)]
        if accuracies:
            found = [row for row in accuracies if name != DECODE_ONLY and same_method(name, row["gradient"])]
            cells.append(" ".join(f"{row['accuracy']:.2f}" for row in found))
        rows.append(cells)
    heads = ["method", *COLUMNS, *(["accuracy"] if accuracies else [])]
    about = f"{plan['model']} cut at {plan['cut']}, {plan['config']}, after {when}"
    return f"{about}\n\n{markdown.table(heads, rows, '--:')}\n\n"


def same_method(first: str, second: str) -> bool:
    """Whether two policies send the same, defaults written out or not."""
    if ALONE in first:
        return False
    one, other = calibrator(first, 0), calibrator(second, 0)
    settings = [(type(each.codec), each.codec.config, each.masked, each.bound) for each in (one, other)]
    return settings[0] == settings[1]


def figure(column: str, value: float) -> str:
    return f"{value:.0f}" if column == "bytes" else f"{value:.2f}"


def show(options: argparse.Namespace) -> None:
    """The tables of the records `--show`, with the accuracies that `--accuracy` has."""
    known = record.read(options.accuracy) if options.accuracy else []
    for path in options.show:
        made = record.read(path)
        network = made["plan"]["model"], made["plan"]["cut"]
        accuracies = [
            row
            for row in known
            if row["method"] in (options.of, f"{options.of}+{row['gradient']}")
            and (row["model"], row["cut"], row["n_epochs"]) == (*network, options.epochs)
        ]
        sys.stdout.write(table(made, accuracies))


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("model", nargs="?", help="as `edgekit models` lists them")
    arguments.add(cut=None, dataset="cifar10", data=None)
    arguments.add("of SGQ", groups=4, bits=4)
    arguments.add("batches of an epoch", steps=200)
    arguments.add("epochs after which to probe", stages="1,4,10")
    arguments.add("images", batch=32)
    arguments.add("of a probe", batches=8)
    arguments.add("method while training", train_with="none")
    arguments.add(lr=0.02, seed=0, threads=1)
    arguments.add_argument("--methods", default=";".join(METHODS), metavar="METHOD;...", help="default: all there are")
    arguments.add_argument("--show", nargs="+", metavar="FILE", help="tables of such records")
    arguments.add("of --show: accuracies after training, as in bench/results/accuracy.json", accuracy=None)
    arguments.add("codec whose accuracies", of="sgq:groups=4,bits=6,coding=context")
    arguments.add("after which", epochs=16)
    arguments.add(out=None)
    options = arguments.parse_args()
    if options.show:
        show(options)
        return
    if options.model is None:
        arguments.error("which model?")
    torch.set_num_threads(options.threads)
    made = study(options)
    sys.stderr.write(table(made, []))
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
