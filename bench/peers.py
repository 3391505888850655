"""Peers: edgekit against what one would write instead, on the same network, images, machine and emulated link.

``python bench/peers.py MODEL [--cut LAYER] --data DIR [--links 10mbit,100mbit] [--out FILE]``: in turn, images/s of

- fp16: a plain PyTorch split-learning loop over a socket, features and gradients as float16 (what NVFlare's split
  learning example sends);
- faiss: the same loop with faiss's product quantiser as the codec of the feature, its codebook trained once on the
  first batch; gradients as float16, since it has nothing for them;
- the methods of `--codecs`, through `edgekit measure`'s own processes.

Device and server of every peer are processes on one processor each, one thread, batches of the same size.
"""

import argparse
import json
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

import faiss
import numpy as np
import record
import torch
from arguments import Arguments
from torch.nn.functional import cross_entropy

from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.export.models.registry import MODELS, build
from edgekit.export.named import default_shape, export_named
from edgekit.export.settings import Calibration, Coding, NamedNetwork
from edgekit.export.split import split
from edgekit.launch.flags import as_flags
from edgekit.launch.processes import Children
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import Link, split_links
from edgekit.machine import describe
from edgekit.measure.cells import Plan, bench, two_sides
from edgekit.measure.methods import parse_list

#: n images, bytes of the feature, bytes of the labels; or n, bytes of the gradient, 0.
HEAD = struct.Struct("<III")
GROUPS, BITS = 8, 4


class Line:
    """Length-prefixed messages over a socket, counted."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._arriving = connection, connection.makefile("rb")
        self.sent = self.received = 0

    def send(self, n: int, *parts: bytes) -> None:
        frame = HEAD.pack(n, *(len(part) for part in (*parts, b"")[:2])) + b"".join(parts)
        self._socket.sendall(frame)
        self.sent += len(frame)

    def recv(self) -> tuple[int, bytes, bytes] | None:
        """None when the other end has closed."""
        head = self._arriving.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        n, *sizes = HEAD.unpack(head)
        first, second = (self._arriving.read(size) for size in sizes)
        self.received += HEAD.size + sum(sizes)
        return n, first, second


class Half16:
    """The feature as float16."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def encode(self, feature: np.ndarray) -> bytes:
        return feature.astype("<f2").tobytes()

    def decode(self, payload: bytes, n: int) -> np.ndarray:
        return np.frombuffer(payload, "<f2").astype(np.float32).reshape(n, *self._shape)


class Faiss:
    """The feature through faiss's product quantiser, one code per position and group."""

    def __init__(self, shape: tuple[int, ...], codebook: str) -> None:
        self._shape = shape
        self._quantiser = faiss.ProductQuantizer(shape[0], GROUPS, BITS)
        self._codebook = codebook
        if os.path.exists(codebook):
            faiss.copy_array_to_vector(np.load(codebook), self._quantiser.centroids)

    def encode(self, feature: np.ndarray) -> bytes:
        return self._quantiser.compute_codes(self._rows(feature)).tobytes()

    def decode(self, payload: bytes, n: int) -> np.ndarray:
        codes = np.frombuffer(payload, np.uint8).reshape(-1, self._quantiser.code_size)
        c, h, w = self._shape
        # Written over with another signature when faiss is imported.
        decode: Any = self._quantiser.decode
        rows: np.ndarray = decode(codes)
        return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)

    def train(self, feature: np.ndarray) -> None:
        self._quantiser.train(self._rows(feature))
        np.save(self._codebook, faiss.vector_to_array(self._quantiser.centroids))

    def _rows(self, feature: np.ndarray) -> np.ndarray:
        """One for each position."""
        return np.ascontiguousarray(feature.transpose(0, 2, 3, 1).reshape(-1, self._shape[0]))


def halves(options: argparse.Namespace) -> tuple[Any, Any, tuple[int, ...], Any]:
    """Front, back, shape of the feature, and the images."""
    dataset = registry.load(options.dataset, options.data, options.limit, 0)
    shape = default_shape(dataset)
    front, back = split(build(options.model, shape, len(dataset.classes), 0), options.cut or MODELS[options.model].cut)
    dataset = images.fit(dataset, shape)
    with torch.no_grad():
        feature = front.train()(tensor(dataset, np.arange(options.batch)))
    return front, back.train(), tuple(feature.shape[1:]), (dataset, feature.numpy())


def tensor(dataset: Any, chosen: np.ndarray) -> torch.Tensor:
    mean, std = (np.array(v, dtype=np.float32).reshape(-1, 1, 1) for v in (dataset.mean, dataset.std))
    return torch.from_numpy((dataset.train_images[chosen].astype(np.float32) / 255 - mean) / std)


def sgd(half: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(half.parameters(), lr, momentum=0.9, weight_decay=5e-4)


def coder(options: argparse.Namespace, shape: tuple[int, ...]) -> Any:
    return Half16(shape) if options.peer == "fp16" else Faiss(shape, options.codebook)


def tell(event: dict[str, Any]) -> None:
    """Says `event` to the process that compares."""
    sys.stdout.write(json.dumps(event) + "\n")


def serve(options: argparse.Namespace) -> None:
    """A peer's server: one device, until it closes."""
    torch.set_num_threads(1)
    _, back, shape, (_, first) = halves(options)
    codec = coder(options, shape)
    if options.peer == "faiss":
        codec.train(first)
    optimizer = sgd(back, options.lr)
    listener = socket.create_server(("127.0.0.1", 0))
    tell({"port": listener.getsockname()[1]})
    line = Line(listener.accept()[0])
    while (message := line.recv()) is not None:
        n, payload, labels = message
        leaf = torch.from_numpy(np.ascontiguousarray(codec.decode(payload, n))).requires_grad_()
        loss = cross_entropy(back(leaf), torch.from_numpy(np.frombuffer(labels, "u1").astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert leaf.grad is not None
        line.send(n, leaf.grad.numpy().astype("<f2").tobytes())


def device(options: argparse.Namespace) -> None:
    """A peer's device: trains for the time asked, and tells what came of it."""
    torch.set_num_threads(1)
    front, _, shape, (dataset, _) = halves(options)
    codec, optimizer = coder(options, shape), sgd(front, options.lr)
    host, _, port = options.server.partition(":")
    line = Line(socket.create_connection((host, int(port))))
    rng = np.random.default_rng(0)
    done = start = 0.0
    begun = time.perf_counter()
    while not start or done < 2 or time.perf_counter() - start < options.seconds:
        chosen = rng.integers(0, len(dataset.train_labels), options.batch)
        output = front(tensor(dataset, chosen))
        labels = dataset.train_labels[chosen].astype("u1").tobytes()
        line.send(options.batch, codec.encode(output.detach().numpy()), labels)
        reply = line.recv()
        assert reply is not None, "the server ended"
        gradient = np.frombuffer(reply[1], "<f2").astype(np.float32).reshape(output.shape)
        optimizer.zero_grad()
        output.backward(torch.from_numpy(gradient))
        optimizer.step()
        done += 1
        now = time.perf_counter()
        if not start and (done >= options.warm_up or now - begun >= options.seconds):
            done, start, line.sent, line.received = 0, now, 0, 0
    elapsed = time.perf_counter() - start
    n = done * options.batch
    figures = {"images_per_s": n / elapsed, "bytes_up": line.sent / n, "bytes_down": line.received / n}
    tell(figures)


def peer_cell(peer: str, link: Link | None, options: argparse.Namespace, cores: Any, scratch: str) -> dict[str, float]:
    """One measurement of a PyTorch peer, whose processes are told what this one is told."""
    given = [*sys.argv[1:], "--peer", peer, "--codebook", os.path.join(scratch, "codebook.npy"), "--role"]
    with ExitStack() as stack:
        children = stack.enter_context(Children([sys.executable, __file__, *given]))
        children.start("server", ["server"], cores and cores[1])
        address = f"127.0.0.1:{next(event['port'] for _, event in children.events())}"
        if link is not None:
            address = f"127.0.0.1:{stack.enter_context(LinkEmulator(link, address)).port}"
        children.start("device", ["device", "--server", address], cores and cores[0])
        return next(event for name, event in children.events() if name == "device")


def compare(options: argparse.Namespace) -> None:
    """All peers, in turn, and the record."""
    methods, links, cores = tuple(parse_list(options.codecs)), split_links(options.links), two_sides()
    calibration = Calibration(registry.load(options.dataset, options.data, options.limit, 0))
    flags = as_flags({"dataset": options.dataset, "data": options.data, "limit": options.limit})
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        bundles = {method.name: os.path.join(scratch, method.name) for method in methods}
        for method in methods:
            coding = Coding(feature_codec(method.codec, method.config))
            export_named(bundles[method.name], NamedNetwork(options.model, options.cut), calibration, coding)
        plan = Plan(methods, bundles, links, (1,), options.repeats, options.seconds, options.warm_up, options.batch,
                    flags, ("--lr", str(options.lr)), cores)  # fmt: skip
        with bench(plan, {}) as ready:
            for repeat in range(options.repeats):
                for name, link in links.items():
                    rates = {peer: peer_cell(peer, link, options, cores, scratch) for peer in ("fp16", "faiss")}
                    for method in methods:
                        found = ready.cell(repeat, name, 1, method)
                        up, down = (sum(found["bytes_per_image"][way].values()) for way in ("up", "down"))
                        rates[method.name] = {"images_per_s": found["images_per_s"], "bytes_up": up, "bytes_down": down}
                    for peer, figures in rates.items():
                        cells.append({"peer": peer, "link": name, "repeat": repeat, **figures})
                        sys.stderr.write(f"{peer} over {name}: {figures['images_per_s']:.1f} images/s\n")
    head = {"command": record.command(), "machine": describe(), "methods": {m.name: m.text for m in methods}}
    network = {"model": options.model, "cut": options.cut, "batch": options.batch}
    record.finish({**head, **network, "results": _medians(cells), "cells": cells}, options.out)


def _medians(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        by_key.setdefault((cell["link"], cell["peer"]), []).append(cell)
    rows = []
    for (link, peer), same in by_key.items():
        rates = [cell["images_per_s"] for cell in same]
        base = [cell["images_per_s"] for cell in by_key[link, "fp16"]]
        rows.append(
            {
                "link": link,
                "peer": peer,
                "images_per_s": {"median": statistics.median(rates), "low": min(rates), "high": max(rates)},
                "ratio_to_fp16": statistics.median(a / b for a, b in zip(rates, base, strict=True)),
                "bytes_up": statistics.median(cell["bytes_up"] for cell in same),
                "bytes_down": statistics.median(cell["bytes_down"] for cell in same),
            }
        )
    return rows


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("model")
    arguments.add(cut=None, dataset="cifar10", data=None, limit=None, codecs="uq,sgq", links="1mbit,10mbit,100mbit")
    arguments.add(batch=32, seconds=5.0, warm_up=3, repeats=3, lr=0.02, out=None)
    arguments.add(argparse.SUPPRESS, role=None, peer=None, server=None, codebook=None)
    options = arguments.parse_args()
    {"server": serve, "device": device, None: compare}[options.role](options)


if __name__ == "__main__":
    main()
