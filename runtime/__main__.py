"""``python -m edgekit.runtime BUNDLE --server HOST:PORT``: the device process, with the standard library's parser.

Boards start this; ``edgekit run`` is the same.
"""

import argparse
import contextlib
import json
import socket
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgekit.bundle import Bundle, open_bundle
from edgekit.codecs.entropy import kernels
from edgekit.data import images, partition, registry
from edgekit.data.base import Dataset
from edgekit.data.classes import mapped
from edgekit.errors import TransportError, UsageError
from edgekit.kept import check_new, check_room, size_of
from edgekit.line.address import check_address
from edgekit.line.clear import check_clear
from edgekit.line.meter import Meter, Recorder
from edgekit.line.names import check_name
from edgekit.providers import AUTO
from edgekit.runtime.identity.folder import Identity, open_identity
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.line import RECONNECT_S, Reconnecting
from edgekit.runtime.loop import Device
from edgekit.runtime.measure import Span, measure_encoding, measure_training
from edgekit.runtime.pace import TIMEOUT_S
from edgekit.runtime.program import exit_code
from edgekit.runtime.reach import find
from edgekit.runtime.saver import finished
from edgekit.runtime.session import Images, Options, check_augment, check_options
from edgekit.runtime.transport import Grpc
from edgekit.runtime.trust import check_bundle

EXAMPLES = """examples:
  edgekit run bundle --server 10.0.0.2:50051 --dataset digits
  edgekit run bundle --server 10.0.0.2:50051 --dataset cifar10 --data ~/data --share 0/2 --epochs 20
  edgekit run bundle --server 10.0.0.2:50051 --measure 10      images/s trained, from ten warm seconds
  edgekit run bundle --measure 10                              images/s encoded, without a server

The bundle comes from `edgekit export`; the server is started by `edgekit serve` with the same bundle."""

#: Instead of a dataset, for `--measure` without a server: the images that the bundle itself carries.
GOLDEN = "golden"
#: Images of the dataset that `--measure` without a server encodes over and over.
MOST_ENCODED = 1024
#: The share of a device that trains on all images.
WHOLE = "0/1"


def parser(program: str) -> argparse.ArgumentParser:
    """The options of a device process."""
    defaults = Options._field_defaults
    p = argparse.ArgumentParser(
        prog=program,
        description="Train the front half of BUNDLE on this device, against the server at HOST:PORT.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("bundle", metavar="BUNDLE", help="folder written by `edgekit export`")
    p.add_argument("--server", metavar="HOST:PORT", help="address of `edgekit serve`")
    p.add_argument("--identity", metavar="DIR", help="talk by mutual TLS, as the device that DIR says "
                   "(`edgekit enroll request` begins one)")  # fmt: skip
    p.add_argument("--insecure", action="store_true", help="talk to another machine in the clear")
    p.add_argument("--dataset", default="digits", help="digits, mnist, fashion-mnist, cifar10, cifar100, folder; "
                   "with --measure alone also golden, the bundle's own images")  # fmt: skip
    p.add_argument("--data", metavar="DIR", help="where the dataset's files are")
    p.add_argument("--limit", type=int, metavar="N", help="use N training images of the dataset, balanced over classes")
    p.add_argument("--share", metavar="I/N", help="this device's share of the training images (default: all of them)")
    p.add_argument("--partition", default="iid", metavar="SCHEME", help="iid (default) or dirichlet:ALPHA")
    p.add_argument("--test-share", default="0/1", metavar="I/N",
                   help="test on this share of the test images (default 0/1: all)")  # fmt: skip
    p.add_argument("--validation", type=float, default=0.0, metavar="SHARE",
                   help="hold this share of the training images back, to choose the best pair by")  # fmt: skip
    p.add_argument("--epochs", type=int, default=10, help="passes over the share (default 10)")
    p.add_argument(
        "--batch", type=int, default=32, help="most images of a step (default 32); the share is split evenly"
    )
    p.add_argument("--augment", metavar="HOW",
                   help="change each training image at random every time that it comes: flip (mirrored, or not), "
                   "crop:N (moved by up to N pixels, edges reflected), or flip,crop:4. For a few ten thousand "
                   "photographs or less; digits and letters take no flip. Not with a bundle of --coding temporal "
                   "(default: images as they are)")  # fmt: skip
    p.add_argument("--in-flight", type=int, default=1, metavar="N", help="batches sent before a gradient must be back")
    p.add_argument("--backend", default="onnxruntime",
                   help="inference engine: onnxruntime (default), tensorrt, ascend or reference")  # fmt: skip
    p.add_argument("--provider", default=AUTO, metavar="NAME",
                   help="what ONNX Runtime runs the graphs that learn on: cpu, cuda, cann or openvino (default auto: "
                   "what the bundle was exported for, where the installed onnxruntime has it)")  # fmt: skip
    p.add_argument("--wait", type=float, default=60.0, metavar="SECONDS",
                   help="go on trying for so long while no server answers (default %(default)g)")  # fmt: skip
    p.add_argument("--timeout", type=float, metavar="SECONDS",
                   help="give the server up after this long without a reply (default: {:g}, and what the line needs at "
                   "the rate that it has shown)".format(TIMEOUT_S))  # fmt: skip
    p.add_argument("--reconnect", type=float, default=RECONNECT_S, metavar="SECONDS",
                   help="try so long to bring a broken line back; 0: end at once (default %(default)s)")  # fmt: skip
    p.add_argument("--threads", type=int, default=1, help="threads of the engine (default 1)")
    p.add_argument("--seed", type=int, default=0, help="decides shares, order of images, revived codewords (default 0)")
    p.add_argument("--codebook-decay", type=float, default=defaults["codebook_decay"], metavar="D",
                   help="share of the old codebook kept per step (default %(default)s)")  # fmt: skip
    p.add_argument("--codebook-tolerance", type=float, default=defaults["codebook_tolerance"], metavar="T",
                   help="send codewords to within T of their group's spread (default %(default)s)")  # fmt: skip
    p.add_argument("--regroup-every", type=int, default=defaults["regroup_every"], metavar="N",
                   help="look for a better grouping every N epochs (default %(default)s: never)")  # fmt: skip
    p.add_argument("--evaluate-every", type=int, default=defaults["evaluate_every"], metavar="N",
                   help="evaluate after every N-th epoch, and after the last (default %(default)s)")  # fmt: skip
    p.add_argument("--measure", type=float, metavar="SECONDS",
                   help="measure for so long instead of --epochs; without --server, encoding alone")  # fmt: skip
    p.add_argument("--warm-up", type=int, default=3, metavar="N",
                   help="batches before --measure begins (default %(default)s)")  # fmt: skip
    p.add_argument("--name", help="this device's name at the server and in records (default: that of its "
                   "certificate; else device-I with --share I/N, else this machine's host name)")  # fmt: skip
    p.add_argument("--out", metavar="DIR",
                   help="keep the trained weights and tables here, after every epoch and every minute")  # fmt: skip
    p.add_argument("--overwrite", action="store_true",
                   help="lose the trained weights and tables of an earlier run that --out holds")  # fmt: skip
    p.add_argument("--resume", action="store_true",
                   help="go on from the latest save in --out, if there is one; other options as before")  # fmt: skip
    p.add_argument("--json", action="store_true", help="progress and results as JSON lines on standard output")
    return p


def main(arguments: Optional[List[str]] = None, program: str = "python -m edgekit.runtime") -> int:
    """Runs a device process; returns its exit code (see `edgekit.errors`)."""
    options = parser(program).parse_args(arguments)
    return exit_code(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """One device process, from opened bundle to the last evaluation, or to what it measured."""
    if options.server is None and options.measure is None:
        raise UsageError("--server HOST:PORT is missing: the address of `edgekit serve`; only --measure does without")
    index, count = partition.parse_share(WHOLE if options.share is None else options.share)
    identity = _identity(options)
    name = check_name(_name(options, index, identity))
    settings = Options(
        name, options.epochs, options.batch, options.in_flight, options.seed + index,
        options.codebook_decay, options.codebook_tolerance, options.regroup_every, options.evaluate_every, options.out,
        options.augment, options.overwrite, options.resume,
    )  # fmt: skip
    _check_out(options)
    if options.server is not None:
        check_options(settings)
        check_line(options)
    elif options.augment is not None:
        raise UsageError(
            "--augment {}: that changes images that are trained on, and without --server nothing is trained: leave it "
            "out".format(options.augment)
        )
    kernels.choice()
    bundle = open_bundle(options.bundle)
    show = Recorder(sys.stdout) if options.json else _print

    over = finished(settings, bundle.digest) if options.resume else {}
    if over:
        # The server may be gone.
        show(over)
        return
    if options.server is not None:
        check_augment(options.augment, bundle.codec, bundle.input_shape)
    if options.out is not None:
        # Before a dataset is read, and the server spoken to.
        check_room(options.out, size_of(bundle.path))
    if identity is not None:
        with contextlib.closing(_connect(options, name, show, identity)(options.wait)) as once:
            check_bundle(bundle, once)
    if options.server is None and options.dataset == GOLDEN:
        with contextlib.closing(_opened(bundle, options, name)) as front:
            golden = bundle.arrays("golden.safetensors")["image"]
            measure_encoding(
                front, golden, options.batch, Span(options.measure, options.warm_up), show,
            )  # fmt: skip
        return
    dataset = registry.load(options.dataset, options.data, options.limit, options.seed, bundle.class_names)
    if bundle.class_names:
        dataset = mapped(dataset, bundle.class_names)
    elif len(dataset.classes) != bundle.classes:
        raise UsageError(
            "{} has {} classes, the bundle was exported for {}: export it again with this dataset".format(
                options.dataset, len(dataset.classes), bundle.classes
            )
        )
    dataset, validation = images_of(options, index, count, dataset, bundle.input_shape)
    front = _opened(bundle, options, name)
    train = Images(dataset.train_images, dataset.train_labels)
    with contextlib.closing(front):
        if options.server is None:
            span = Span(options.measure, options.warm_up)
            measure_encoding(front, front.normalise(dataset.train_images[:MOST_ENCODED]), options.batch, span, show)
            return
        try:
            opened = _line(options, name, show, identity)
        except TransportError:
            over = finished(settings, bundle.digest, surely=False) if options.resume else {}
            if not over:
                raise
            # All was done but the goodbye, and the server has ended.
            show(over)
            return
        with opened as transport:
            device = Device(front, transport, settings, show, present(dataset, bundle.class_names))
            if options.measure is None:
                device.train(train, Images(dataset.test_images, dataset.test_labels), validation)
            else:
                measure_training(device, train, Span(options.measure, options.warm_up), show)


def _line(
    options: argparse.Namespace, name: str, show: Callable[[Dict[str, Any]], None], identity: Optional[Identity]
) -> Reconnecting:
    """The line to the server, which comes back when it breaks."""

    def tell(event: Dict[str, Any]) -> None:
        show(dict(event, device=name))

    connect = _connect(options, name, show, identity)
    return Reconnecting(connect, connect(options.wait), options.reconnect, tell)


def _connect(
    options: argparse.Namespace, name: str, show: Callable[[Dict[str, Any]], None], identity: Optional[Identity]
) -> Callable[..., Grpc]:
    """What opens a line to the server, all with one meter; its argument is how many seconds to wait for a server."""
    meter = Meter()

    def waits(reason: str) -> None:
        event = {"event": "waiting", "device": name, "server": options.server, "seconds": options.wait}
        show(dict(event, reason=reason))

    def connect(wait_s: float = 0.0) -> Grpc:
        return Grpc(options.server, meter, wait_s, options.timeout, waits, identity)

    return connect


def check_line(options: argparse.Namespace) -> None:
    """UsageError for an address or for seconds that are none, TransportError for a host that is unknown."""
    find(options.server)
    for name, seconds in (("wait", options.wait), ("timeout", options.timeout), ("reconnect", options.reconnect)):
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise UsageError("--{} {}: expected seconds, 0 or more".format(name, seconds))


def _check_out(options: argparse.Namespace) -> None:
    if options.out is None and options.overwrite:
        raise UsageError("--overwrite is of --out, which is not given")
    if options.resume and (options.out is None or options.overwrite):
        raise UsageError("--resume goes on with what --out DIR holds: give --out, and not --overwrite")
    if options.out is not None:
        if options.measure is not None:
            raise UsageError("--out {}: --measure keeps nothing: leave it out".format(options.out))
        check_new(options.out, options.overwrite, options.resume)


def _opened(bundle: Bundle, options: argparse.Namespace, name: str) -> FrontHalf:
    """The front half of `bundle`; says what it learns on."""
    front = FrontHalf(bundle, options.backend, options.threads, options.provider)
    engine, provider = front.passes.backend_id, front.passes.provider
    event = {"event": "opened", "device": name, "backend": options.backend, "learns_on": engine}
    event.update(provider=provider.name, wanted=provider.wanted, reason=provider.reason)
    (Recorder(sys.stdout) if options.json else _print)(event)
    return front


def present(dataset: Dataset, names: Sequence[str]) -> List[str]:
    """Those of the classes' `names` that there are training images of."""
    return [name for label, name in enumerate(names) if (dataset.train_labels == label).any()]


def images_of(
    options: argparse.Namespace, index: int, count: int, dataset: Dataset, shape: Tuple[int, int, int]
) -> Tuple[Dataset, Optional[Images]]:
    """This device's part of `dataset`, images of `shape`, and the training images that it holds back."""
    test_index, test_count = partition.parse_share(options.test_share)
    if not 0 <= options.validation < 1:
        raise UsageError("--validation {}: expected a share below 1".format(options.validation))
    share = partition.shares(dataset.train_labels, count, options.partition, options.seed)[index]
    test = partition.shares(dataset.test_labels, test_count, "iid", options.seed)[test_index]
    labels = dataset.train_labels[share]
    held_out = np.zeros(len(share), dtype=bool)
    held_out[partition.stratified(labels, int(options.validation * len(share)), options.seed)] = True
    train = share[~held_out]
    mine = dataset._replace(
        train_images=dataset.train_images[train], train_labels=dataset.train_labels[train],
        test_images=dataset.test_images[test], test_labels=dataset.test_labels[test],
    )  # fmt: skip
    if not held_out.any():
        return images.fit(mine, shape), None
    held = share[held_out]
    fitted = images.fit(mine._replace(test_images=dataset.train_images[held]), shape)
    return images.fit(mine, shape), Images(fitted.test_images, dataset.train_labels[held])


def _identity(options: argparse.Namespace) -> Optional[Identity]:
    """Who this device is; None where nobody asks. UsageError for a line in the clear that was not asked for."""
    if options.server is None:
        if options.identity is not None:
            raise UsageError("--identity without --server HOST:PORT: there is nobody to show it to")
        return None
    check_address(options.server)
    check_clear("--server", options.server, options.identity is not None, options.insecure)
    return None if options.identity is None else open_identity(options.identity)


def _name(options: argparse.Namespace, index: int, identity: Optional[Identity]) -> str:
    """The device's name: its certificate's, else the machine's, or that of the share where several divide a dataset."""
    if identity is not None:
        if options.name not in (None, identity.name):
            told = "--name {}: the certificate in {} is of {}; leave --name out, or enroll under that name"
            raise UsageError(told.format(options.name, identity.folder, identity.name))
        return identity.name
    if options.name is not None:
        return str(options.name)
    return socket.gethostname() if options.share is None else "device-{}".format(index)


def _print(event: Dict[str, Any]) -> None:
    """One line per event, for a person."""
    if event["event"] == "epoch":
        tested = "test accuracy {accuracy:.2f} %, ".format(**event) if "accuracy" in event else ""
        print(
            "{device} epoch {epoch}/{epochs}: loss {loss:.3f}, {tested}"
            "{images_per_s:.0f} images/s, {up:.0f} B up and {down:.0f} B down per image".format(
                tested=tested,
                up=event["bytes_up"] / max(event["images"], 1),
                down=event["bytes_down"] / max(event["images"], 1),
                **event,
            ),
            flush=True,
        )
    elif event["event"] == "opened":
        instead = "" if event["provider"] == event["wanted"] else ", not {wanted}"
        told = "{device} learns in {learns_on} on provider {provider}" + instead + ": {reason}"
        print(told.format(**event), flush=True)
    elif event["event"] == "broken":
        print("{device}: {reason}; trying to come back for {seconds:.0f} s".format(**event), flush=True)
    elif event["event"] == "resumed":
        print("{device}: back after {after_s:.1f} s, going on where it was".format(**event), flush=True)
    elif event["event"] == "went_back":
        print("{device}: going on from step {step}, in epoch {epoch}/{epochs}".format(**event), flush=True)
    elif event["event"] == "anew":
        print("{device}: cannot go on with its run, begins anew: {reason}".format(**event), flush=True)
    elif event["event"] == "warned":
        print("{device}: {warning}".format(**event), flush=True)
    elif event["event"] == "waiting":
        told = "{device}: no server answers at {server}: {reason}; trying for {seconds:g} s (--wait)"
        print(told.format(**event), flush=True)
    elif event["event"] == "not_kept":
        print("{device}: {reason}".format(**event), flush=True)
    elif event["event"] == "connected":
        print("{device} connected: {steps} steps in {epochs} epochs".format(**event), flush=True)
    elif event["event"] in ("measured", "encoded"):
        print(
            "{images_per_s:.1f} images/s {event}, {images} images in {seconds:.1f} s; a batch takes {p50:.1f} ms, "
            "95 of 100 less than {p95:.1f} ms".format(
                p50=1e3 * event["latency_s"]["p50"],
                p95=1e3 * event["latency_s"]["p95"],
                **dict(event, event="trained" if event["event"] == "measured" else "encoded"),
            ),
            flush=True,
        )
    elif event["event"] == "done":
        seconds = {key: round(value, 2) for key, value in event["seconds"].items()}
        print("{} done: seconds {}".format(event["device"], json.dumps(seconds)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
