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
from edgekit.runtime.front import normalise

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
    """Features like `first` (n,C,h,w) as float16."""

    def __init__(self, first: np.ndarray) -> None:
        self._shape = first.shape[1:]

    def encode(self, feature: np.ndarray) -> bytes:
        return feature.astype("<f2").tobytes()

    def decode(self, payload: bytes) -> np.ndarray:
        return np.frombuffer(payload, "<f2").astype(np.float32).reshape(-1, *self._shape)


class Faiss:
    """Features through faiss's product quantiser, one code per position and group, trained on `first` (n,C,h,w)."""

    def __init__(self, first: np.ndarray) -> None:
        self._shape = first.shape[1:]
        self._quantiser = faiss.ProductQuantizer(self._shape[0], GROUPS, BITS)
        self._quantiser.train(self._rows(first))

    def encode(self, feature: np.ndarray) -> bytes:
        return self._quantiser.compute_codes(self._rows(feature)).tobytes()

    def decode(self, payload: bytes) -> np.ndarray:
        codes = np.frombuffer(payload, np.uint8).reshape(-1, self._quantiser.code_size)
        c, h, w = self._shape
        # Written over with another signature when faiss is imported.
        decode: Any = self._quantiser.decode
        rows: np.ndarray = decode(codes)
        return rows.reshape(-1, h, w, c).transpose(0, 3, 1, 2)

    def _rows(self, feature: np.ndarray) -> np.ndarray:
        """One for each position."""
        return np.ascontiguousarray(feature.transpose(0, 2, 3, 1).reshape(-1, self._shape[0]))


PEERS: dict[str, type[Half16] | type[Faiss]] = {"fp16": Half16, "faiss": Faiss}


class Peer:
    """What both ends of a PyTorch peer begin with: images, halves, and the codec, which the first batch decides."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        dataset = registry.load(options.dataset, options.data, options.limit, 0)
        shape, cut = default_shape(dataset), options.cut or MODELS[options.model].cut
        self.front, self.back = split(build(options.model, shape, len(dataset.classes), 0).train(), cut)
        self.dataset = images.fit(dataset, shape)
        self.mean, self.std = (np.array(v, dtype=np.float32) for v in (self.dataset.mean, self.dataset.std))
        with torch.no_grad():
            self.codec = PEERS[options.peer](self.front(self.batch(np.arange(options.batch))).numpy())

    def batch(self, chosen: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(normalise(self.dataset.train_images[chosen], self.mean, self.std))


def sgd(half: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(half.parameters(), lr, momentum=0.9, weight_decay=5e-4)


def tell(event: dict[str, Any]) -> None:
    """Says `event` to the process that compares."""
    sys.stdout.write(json.dumps(event) + "\n")


def serve(options: argparse.Namespace) -> None:
    """A peer's server: one device, until it closes."""
    peer = Peer(options)
    optimizer = sgd(peer.back, options.lr)
    listener = socket.create_server(("127.0.0.1", 0))
    tell({"port": listener.getsockname()[1]})
    line = Line(listener.accept()[0])
    while (message := line.recv()) is not None:
        n, payload, labels = message
        leaf = torch.from_numpy(np.ascontiguousarray(peer.codec.decode(payload))).requires_grad_()
        loss = cross_entropy(peer.back(leaf), torch.from_numpy(np.frombuffer(labels, "u1").astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert leaf.grad is not None
        line.send(n, leaf.grad.numpy().astype("<f2").tobytes())


def device(options: argparse.Namespace) -> None:
    """A peer's device: trains for the time asked, and tells what came of it."""
    peer = Peer(options)
    optimizer, labels = sgd(peer.front, options.lr), peer.dataset.train_labels.astype("u1")
    line = Line(socket.create_connection(("127.0.0.1", int(options.port))))
    rng = np.random.default_rng(0)
    done = start = 0.0
    begun = time.perf_counter()
    while not start or done < 2 or time.perf_counter() - start < options.seconds:
        chosen = rng.integers(0, len(labels), options.batch)
        output = peer.front(peer.batch(chosen))
        line.send(options.batch, peer.codec.encode(output.detach().numpy()), labels[chosen].tobytes())
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
    tell({"images_per_s": n / elapsed, "bytes_up": line.sent / n, "bytes_down": line.received / n})


def peer_cell(peer: str, link: Link | None, cores: Any) -> dict[str, float]:
    """One measurement of a PyTorch peer, whose processes are told what this one is told."""
    with ExitStack() as stack:
        children = stack.enter_context(Children([sys.executable, __file__, *sys.argv[1:], "--peer", peer, "--role"]))
        children.start("server", ["server"], cores and cores[1])
        port = next(event["port"] for _, event in children.events())
        if link is not None:
            port = stack.enter_context(LinkEmulator(link, f"127.0.0.1:{port}")).port
        children.start("device", ["device", "--port", str(port)], cores and cores[0])
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
                    rates = {peer: peer_cell(peer, link, cores) for peer in PEERS}
                    for method in methods:
                        found = ready.cell(repeat, name, 1, method)
                        up, down = (sum(found["bytes_per_image"][way].values()) for way in ("up", "down"))
                        rates[method.name] = {"images_per_s": found["images_per_s"], "bytes_up": up, "bytes_down": down}
                    for peer, figures in rates.items():
                        cells.append({"peer": peer, "link": name, "repeat": repeat, **figures})
                        sys.stderr.write(f"{peer} over {name}: {figures['images_per_s']:.1f} images/s\n")
    head = {**record.head(), "machine": describe(), "methods": {m.name: m.text for m in methods}}
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
        rows.append({
            "link": link,
            "peer": peer,
            "images_per_s": {"median": statistics.median(rates), "low": min(rates), "high": max(rates)},
            "ratio_to_fp16": statistics.median(a / b for a, b in zip(rates, base, strict=True)),
            **{way: statistics.median(cell[way] for cell in same) for way in ("bytes_up", "bytes_down")},
        })  # fmt: skip
    return rows


def main() -> None:
    arguments = Arguments(__doc__, "model")
    arguments.add(cut=None, dataset="cifar10", data=None, limit=None, codecs="uq,sgq", links="1mbit,10mbit,100mbit")
    arguments.add(batch=32, seconds=5.0, warm_up=3, repeats=3, lr=0.02, out=None)
    arguments.add(argparse.SUPPRESS, role=None, peer=None, port=None)
    options = arguments.parse_args()
    {"server": serve, "device": device, None: compare}[options.role](options)


if __name__ == "__main__":
    main()
