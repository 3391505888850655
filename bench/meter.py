"""What measuring costs: the same training run with the meter and without it, in turn.

``python bench/meter.py MODEL [--cut LAYER] [--dataset D --data DIR] [--out FILE]``: a device in this process trains
against a server process over loopback. Metered: bytes by kind, seconds by activity, latencies, and the energy sampler
(which samples only where the board shows a rail), as `edgekit measure` has them. Bare: none of these; the clock is read
at the beginning and at the end.
"""

import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator

import record
from arguments import Arguments

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.export.named import export_named
from edgekit.export.settings import Calibration, Coding, NamedNetwork
from edgekit.launch.processes import Children
from edgekit.line.meter import Meter
from edgekit.machine import describe
from edgekit.measure.cells import two_sides
from edgekit.measure.methods import parse
from edgekit.runtime.energy import Energy
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Grpc


class Bare(Meter):
    """Counts nothing."""

    def count(self, direction: str, kind: str, n_bytes: int) -> None:
        return None

    @contextlib.contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        yield


def rate(bundle: Bundle, address: str, train: Images, steps: int, metered: bool) -> float:
    """Images per second of `steps` batches after three to warm up."""
    meter, energy = (Meter() if metered else Bare()), Energy()
    latencies = []
    front, line = FrontHalf(bundle, "onnxruntime", 1), Grpc(address, meter)
    with contextlib.closing(front), contextlib.closing(line):
        device = Device(front, line, Options("meter"), lambda event: None)
        per_epoch = device.steps_per_epoch(train)
        device.session.hello(len(train.labels), per_epoch, 1000)
        epochs = (device.batches(len(train.labels), per_epoch) for _ in range(steps))
        batches = itertools.islice(itertools.chain.from_iterable(epochs), steps + 3)
        start, before = 0.0, 0
        for done, (sent, _) in enumerate(device.session.steps(train, batches), 1):
            if done == 3:
                start, before = time.perf_counter(), device.session.images
                if metered:
                    energy.start()
            elif metered:
                latencies.append(time.perf_counter() - sent.began)
        elapsed = time.perf_counter() - start
        energy.stop()
        device.session.bye()
    return (device.session.images - before) / elapsed


def main() -> None:
    arguments = Arguments(__doc__, "model")
    arguments.add(cut=None, dataset="digits", data=None, codec="sgq", steps=60, repeats=10, out=None)
    options = arguments.parse_args()
    method, cores = parse(options.codec), two_sides()
    dataset = registry.load(options.dataset, options.data, 2048, 0)
    rates: dict[str, list[float]] = {"metered": [], "bare": []}
    with tempfile.TemporaryDirectory() as scratch, Children() as children:
        network, coding = NamedNetwork(options.model, options.cut), Coding(feature_codec(method.codec, method.config))
        bundle = export_named(os.path.join(scratch, "bundle"), network, Calibration(dataset), coding)
        flags = ["--listen", "127.0.0.1:0", "--json", "--schedule", "constant", "--lr", "0.02"]
        flags += ["--gradient-codec", method.gradient]
        children.start("server", ["serve", bundle.path, *flags], cores and cores[1])
        port = next(event["port"] for _, event in children.events() if event["event"] == "listening")
        if cores:
            os.sched_setaffinity(0, cores[0])
        fitted = images.fit(dataset, bundle.input_shape)
        train = Images(fitted.train_images, fitted.train_labels)
        for _ in range(options.repeats):
            for name in rates:
                rates[name].append(rate(bundle, f"127.0.0.1:{port}", train, options.steps, name == "metered"))
    ratios = [metered / bare for metered, bare in zip(rates["metered"], rates["bare"], strict=True)]
    spread = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    made = {
        **record.head(),
        "machine": describe(),
        "images_per_s": {name: [round(value, 1) for value in values] for name, values in rates.items()},
        "metered_over_bare": {name: round(value, 4) for name, value in spread.items()},
    }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
