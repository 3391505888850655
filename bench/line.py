"""What the line costs: `edgekit train` against a plain PyTorch loop of the same model, batch size and data.

``python bench/line.py MODEL [--out FILE]``: in turn, one epoch of digits through the line, with one and with two
devices (device processes and a server process over loopback, one thread each), and the same images through an ordinary
single-process PyTorch loop on one thread. Images per second of training; evaluation and start-up do not count.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnxruntime
import torch
from record import finish
from torch.nn.functional import cross_entropy

from edgekit.data import images, registry
from edgekit.export.models.registry import build
from edgekit.export.named import default_shape


def pytorch_loop(name: str, limit: int, batch: int) -> float:
    """Images per second of SGD with momentum over `limit` digits."""
    dataset = registry.load("digits", None, limit)
    shape = default_shape(dataset)
    dataset = images.fit(dataset, shape)
    model = build(name, shape, 10, 0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    mean, std = (np.array(v, dtype=np.float32).reshape(-1, 1, 1) for v in (dataset.mean, dataset.std))
    order = np.random.default_rng(0).permutation(len(dataset.train_labels))
    steps = len(order) // batch
    start = time.perf_counter()
    for i in range(steps):
        chosen = order[i * batch : (i + 1) * batch]
        x = torch.from_numpy((dataset.train_images[chosen].astype(np.float32) / 255 - mean) / std)
        loss = cross_entropy(model(x), torch.from_numpy(dataset.train_labels[chosen]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return steps * batch / (time.perf_counter() - start)


def line(name: str, limit: int, batch: int, devices: int, codec: str) -> dict[str, Any]:
    """The summary of one epoch of `edgekit train`."""
    command = [
        *(sys.executable, "-m", "edgekit", "train", name, "--dataset", "digits", "--limit", str(limit)),
        *("--epochs", "1", "--batch", str(batch), "--devices", str(devices), "--codec", codec, "--json"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--limit", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", default="sgq")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {"pytorch": [], "1 device": [], "2 devices": []}
    seconds: dict[str, Any] = {}
    for _ in range(options.repeats):
        rates["pytorch"].append(pytorch_loop(options.model, options.limit, options.batch))
        for devices in (1, 2):
            name = "1 device" if devices == 1 else "2 devices"
            summary = line(options.model, options.limit, options.batch, devices, options.codec)
            rates[name].append(summary["images_per_s"])
            seconds[name] = summary["seconds"]
    baseline = statistics.median(rates["pytorch"])
    result = {
        "command": ["python", *sys.argv],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
        "images_per_s": {name: [round(rate, 1) for rate in values] for name, values in rates.items()},
        "ratio_to_pytorch": {name: round(statistics.median(v) / baseline, 3) for name, v in rates.items()},
        "seconds_of_a_device_last_repeat": seconds,
    }
    finish(result, options.out)


if __name__ == "__main__":
    main()
