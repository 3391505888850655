"""Update codecs on updates of real training: bytes by the papers' formulas and measured, and how much arrives.

``python bench/update_codecs.py --data DIR [--models A,B] [--out FILE]``: trains each network from fresh weights by
plain PyTorch and SGD on CIFAR-10, and sends what every epoch changed by each codec in turn, with what its sender kept
of the epochs before. ``--show FILE`` prints the tables of such a record.

"formula" and "measured" are how many times fewer the bytes are than those of float32, by the paper's formula and as
packed. "of entropy", where all values are of one scale: bytes measured over the entropy of their places and levels,
with each value as likely as any other of its level; below 1 where the coder knows more. "kept": values that are not 0
when they arrive. "cosine": between the sum of what was given and the sum of what arrived, over all epochs.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from saved_updates import Update, trained

from edgekit.codecs.base import UpdateCodec
from edgekit.codecs.registry import parse_update_codec
from edgekit.codecs.updates.flat import flat, shapes_of

CODECS = (
    *("fedavg", "quantised", "quantised:step=1", "terngrad", "dgc:warmup=0", "dgc:keep=0.01,warmup=0", "stc"),
    *("dhqc", "dhqc:location=middle", "dhqc:location=mean", "fsfl", "fsfl:sparsity=0.96"),
    "fsfl:sparsity=0.96,feedback=true",
)
#: Of these the update that arrives has a few different values, the same in all arrays.
ONE_SCALE = {"stc", "dhqc"}
#: The ratio that is published for dhqc, by formula.
PUBLISHED = 799


def sent(codec: UpdateCodec, updates: list[Update]) -> dict[str, Any]:
    """What sending `updates` by `codec` comes to, one after another."""
    sender, rng = codec.sender(), np.random.default_rng(0)
    measured = kept = 0
    formula = entropy = 0.0
    arrived: list[np.ndarray] = []
    for update in updates:
        payload, arrives = sender.send(update, rng)
        values = flat(arrives)
        measured += len(payload)
        formula += codec.formula_bits_of(arrives) / 8
        entropy += entropy_bits(values) / 8
        kept += int(np.count_nonzero(values))
        arrived.append(values.astype(np.float64))
    count = sum(values.size for values in arrived)
    given = np.sum([flat(update) for update in updates], axis=0, dtype=np.float64)
    came = np.sum(arrived, axis=0)
    return {
        "codec": codec.codec_id,
        "config": codec.config,
        "bytes": round(measured / len(updates)),
        "formula_bytes": round(formula / len(updates)),
        "formula_ratio": round(4 * count / formula, 2),
        "ratio": round(4 * count / measured, 2),
        "of_entropy": round(measured / entropy, 4) if codec.codec_id in ONE_SCALE else None,
        "kept": round(kept / count, 5),
        "cosine": round(float(given @ came / (np.linalg.norm(given) * np.linalg.norm(came))), 3),
    }


def entropy_bits(values: np.ndarray) -> float:
    """The entropy of where `values` (m,) are not 0, and of what they are there."""
    _, counts = np.unique(values, return_counts=True)
    return float(-(counts * np.log2(counts / values.size)).sum())


def keep_for(ratio: float, measured: Callable[[float], float]) -> float:
    """The largest share to keep at which `measured`, which falls as more is kept, is above `ratio`: within 0.2 %."""
    low, high = 1e-4, 0.1
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if measured(middle) > ratio else (low, middle)
    return low


def bench(model: str, options: Any) -> dict[str, Any]:
    """The record of one network."""
    updates = []
    for epoch, update in trained("sgd", options.data, options.limit, options.epochs, model):
        sys.stderr.write(f"{model}: epoch {epoch} of {options.epochs}\n")
        updates.append(update)
    shapes = shapes_of(updates[0])
    keep = keep_for(PUBLISHED, lambda share: sent(parse_update_codec(f"dhqc:keep={share}"), updates)["ratio"])
    return {
        "values": sum(array.size for array in updates[0].values()),
        "arrays": len(shapes),
        "codecs": {text: sent(parse_update_codec(text), updates) for text in CODECS},
        "dhqc_at_published_ratio": sent(parse_update_codec(f"dhqc:keep={keep:.6f}"), updates),
    }


def table(made: dict[str, Any]) -> str:
    """The record as tables in Markdown."""
    heads = ["network", "update codec", "B an update", "formula", "measured", "of entropy", "kept", "cosine"]
    rows = []
    for model, each in made["models"].items():
        for name, row in [*each["codecs"].items(), ("dhqc", each["dhqc_at_published_ratio"])]:
            label = name if row is not each["dhqc_at_published_ratio"] else f"dhqc:keep={row['config']['keep']}"
            rows.append([
                model, f"`{label}`", f"{row['bytes']:,}", f"{row['formula_ratio']:.1f}x", f"{row['ratio']:.1f}x",
                f"{row['of_entropy']:.3f}" if row["of_entropy"] else "", f"{100 * row['kept']:.2f} %",
                f"{row['cosine']:.3f}",
            ])  # fmt: skip
    return markdown.table(heads, rows, "---:")


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("CIFAR-10, binary version", data=None)
    arguments.add(models="allcnn,vgg11_thin", limit=1000, epochs=4)
    options = arguments.parse_or_show(table)
    torch.set_num_threads(1)
    made = record.head("numpy", "torch")
    made["limit"], made["epochs"] = options.limit, options.epochs
    made["models"] = {model: bench(model, options) for model in options.models.split(",")}
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
