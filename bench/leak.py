"""What of the images can be reconstructed from what crosses the line.

\b
python bench/leak.py vgg11_thin --data DIR [--out FILE] [--plot FILE]
python bench/leak.py --show FILE

For each method a network is trained in one process, cut at `--cut`, on `--limit` images: those of the devices. Whoever
wants to see images runs its front half on `--known` other images of his own, and trains a decoder (`inversion.py`)
from what the codec makes of the features back to the images. It is then given what the codec makes of `--test` test
images, which neither the network nor the decoder has learned from.

At `--cuts` the same networks are cut elsewhere, for the methods `--deeper`, with codebooks fitted there after training.
"sent" is what is read of the front half: FP32 is its feature before the codec. Two rows know nothing of the features:
"mean image" answers every image with the mean of the known ones, "labels alone" with the mean of those of its class.

\b
MSE   mean squared error of values from 0 to 1, of an image, mean over the images
PSNR  -10 log10 of an image's MSE, in dB, mean over the images
SSIM  structural similarity (Wang et al. 2004), 1 for the same image, mean over the images
"""

import argparse
import sys
from typing import Any, NamedTuple

import inversion
import leak_pictures
import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from torch import nn
from trainer import Plan, Trainer

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.data.base import Dataset
from edgekit.export.models.registry import build
from edgekit.export.named import default_shape
from edgekit.export.split import split
from edgekit.measure.methods import parse
from edgekit.runtime.front import normalise

#: What crosses the line upwards; gradients go back as they are.
METHODS = {
    "FP32": "raw",
    "UQ-4": "uniform:bits=4",
    "SGQ 8x5": "sgq:groups=8,bits=5",
    "SGQ 4x6": "sgq:groups=4,bits=6",
}
#: Images that codebooks are fitted to, and those of one message.
CALIBRATION = 256
BATCH = 32
COLUMNS = ("cut", "feature", "trained with", "sent", "codes, B an image", "MSE", "PSNR, dB", "SSIM")


class Split(NamedTuple):
    """A dataset in the parts that its owners have: images (n,C,H,W) uint8, labels (n,)."""

    #: All of it, the test images cut down to those that are looked at.
    dataset: Dataset
    #: Indices of the devices' training images, and of those that the attacker has.
    devices: np.ndarray
    known: np.ndarray


def parts(options: argparse.Namespace) -> Split:
    whole = registry.load(options.dataset, options.data)
    dataset = images.fit(whole, default_shape(whole))
    drawn = np.random.default_rng(options.seed).permutation(len(dataset.train_labels))
    end = options.limit + options.known
    if end > len(drawn):
        sys.exit(f"{options.limit} images of devices and {options.known} others: {dataset.name} has {len(drawn)}")
    test = slice(options.test)
    few = dataset._replace(test_images=dataset.test_images[test], test_labels=dataset.test_labels[test])
    return Split(few, drawn[: options.limit], drawn[options.limit : end])


class Trained(NamedTuple):
    """A network, and the codec that it was trained with."""

    network: nn.Module
    codec: FeatureCodec
    tables: Arrays
    #: Percent of the test images.
    accuracy: float


def trained(method: str, data: Split, options: argparse.Namespace) -> Trained:
    found = parse(METHODS[method])
    plan = Plan(
        options.model, options.cut, found.codec, found.config, found.gradient, options.seed, options.epochs,
        options.batch, options.lr, mixed=True, every=options.epochs,
    )  # fmt: skip

    def show(line: dict[str, Any]) -> None:
        sys.stderr.write(f"{method}: epoch {line['epoch']}, loss {line['loss']:.3f}\n")

    trainer = Trainer(plan, data.dataset, data.devices, show)
    accuracy = trainer.run()[-1]["accuracy"]
    shape = data.dataset.train_images.shape[1:]
    network = build(options.model, shape, len(data.dataset.classes), options.seed)
    network.load_state_dict({**trainer.front.module.state_dict(), **trainer.back.state_dict()})
    return Trained(network, trainer.codec, trainer.front.tables, accuracy)


class Line:
    """The front half of `network` at `cut`, and what a listener reads of its features: what `codec` makes of them."""

    def __init__(self, network: nn.Module, cut: str, codec: FeatureCodec, tables: Arrays | None, data: Split) -> None:
        self._front = split(network, cut)[0].eval()
        self._mean, self._std = (np.array(each, np.float32) for each in (data.dataset.mean, data.dataset.std))
        self._codec = codec
        if tables is None:
            tables = codec.calibrate(self._features(data.dataset.train_images[data.devices[:CALIBRATION]]), 0)
        self._tables = tables

    def read(self, pixels: np.ndarray) -> tuple[torch.Tensor, float]:
        """Decoded features (n,C,h,w) f32 of the images `pixels` (n,C,H,W) uint8, and bytes of an image's codes."""
        read, size = [], 0
        for start in range(0, len(pixels), BATCH):
            feature = self._features(pixels[start : start + BATCH])
            order = self._codec.order(feature.shape[1], self._tables)
            payload = self._codec.pack(self._codec.quantize(np.ascontiguousarray(feature[:, order]), self._tables))
            codes = self._codec.unpack(payload, feature.shape)
            read.append(torch.from_numpy(np.ascontiguousarray(self._codec.dequantize(codes, self._tables))))
            size += len(payload)
        return torch.cat(read), size / len(pixels)

    def _features(self, pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            feature: torch.Tensor = self._front(torch.from_numpy(normalise(pixels, self._mean, self._std)))
        return feature.numpy()


def reconstructed(line: Line, data: Split, options: argparse.Namespace) -> tuple[torch.Tensor, dict[str, Any]]:
    """The test images as a decoder sees them, (n,C,H,W) of 0 to 1, and what it was given of each."""
    known, _ = line.read(data.dataset.train_images[data.known])
    secret, size = line.read(data.dataset.test_images)
    originals = inversion.scaled(data.dataset.train_images[data.known])
    decoder = inversion.train(known, originals, options.decoder_epochs, options.seed)
    return inversion.decode(decoder, secret), {"feature": list(secret.shape[1:]), "bytes": size}


def without_features(data: Split) -> dict[str, torch.Tensor]:
    """Answers (n,C,H,W) to the test images by those who see no feature."""
    known = inversion.scaled(data.dataset.train_images[data.known])
    labels = torch.from_numpy(data.dataset.train_labels[data.known])
    classes = torch.stack([known[labels == label].mean(0) for label in range(len(data.dataset.classes))])
    return {
        "mean image": known.mean(0, keepdim=True).expand(len(data.dataset.test_labels), -1, -1, -1),
        "labels alone": classes[torch.from_numpy(data.dataset.test_labels)],
    }


def study(options: argparse.Namespace) -> tuple[dict[str, Any], leak_pictures.Pictures]:
    """The record, and what the pictures show."""
    data = parts(options)
    originals = inversion.scaled(data.dataset.test_images)
    # One image of each class.
    shown = np.unique(data.dataset.test_labels, return_index=True)[1]
    made: dict[str, Any] = {
        **record.head("torch", "numpy"),
        **{name: value for name, value in vars(options).items() if name not in ("data", "out", "plot", "show")},
        "accuracy": {},
        "rows": [],
    }
    pictures: leak_pictures.Pictures = {"original": originals[shown]}

    def add(answers: torch.Tensor, name: str, **row: Any) -> None:
        made["rows"].append({**row, **inversion.figures(answers, originals)})
        pictures[name] = answers[shown]
        sys.stderr.write(f"{name}: {made['rows'][-1]}\n")

    for sent, answers in without_features(data).items():
        add(answers, sent, sent=sent)
    networks = {}
    for method in METHODS:
        networks[method] = trained(method, data, options)
        made["accuracy"][method] = networks[method].accuracy
    for method, sent, cut in cases(options):
        network, codec, tables, _ = networks[method]
        if sent != method:
            codec = feature_codec(METHODS[sent], {})
        line = Line(network, cut, codec, tables if (sent, cut) == (method, options.cut) else None, data)
        answers, told = reconstructed(line, data, options)
        name = f"{sent}, {cut}" if sent == method else f"{sent}, before {method}"
        add(answers, name, cut=cut, trained_with=method, sent=sent, **told)
    return made, pictures


def cases(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Method that a network is trained with, what is read of its front half, and the cut."""
    deeper = options.deeper.split(",")
    found = [(method, method, options.cut) for method in METHODS]
    found += [(method, "FP32", options.cut) for method in deeper if method != "FP32"]
    return found + [(method, method, cut) for cut in options.cuts.split(",") for method in deeper]


def table(made: dict[str, Any]) -> str:
    """The record as a table in Markdown."""
    rows = []
    for row in made["rows"]:
        known = [row["cut"], "x".join(map(str, row["feature"])), row["trained_with"]] if "cut" in row else [""] * 3
        size = f"{row['bytes']:,.0f}" if "bytes" in row else "0"
        rows.append([*known, row["sent"], size, f"{row['mse']:.4f}", f"{row['psnr']:.2f}", f"{row['ssim']:.3f}"])
    return markdown.table(COLUMNS, rows)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("model", nargs="?", default="vgg11_thin")
    arguments.add(cut="features.10", dataset="cifar10", data=None, seed=0, epochs=4, batch=64, lr=0.05)
    arguments.add("training images of the devices", limit=20000)
    arguments.add("training images that the attacker has", known=10000)
    arguments.add("test images to reconstruct", test=2000)
    arguments.add("how often the decoder sees the known images", decoder_epochs=6)
    arguments.add("other cuts", cuts="features.3,features.7,features.14")
    arguments.add("methods that are looked at there, and before their codec", deeper="FP32,SGQ 8x5")
    arguments.add(plot=None)
    options = arguments.parse_or_show(table)
    torch.set_num_threads(1)
    made, pictures = study(options)
    if options.plot:
        leak_pictures.draw(pictures, options.plot)
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
