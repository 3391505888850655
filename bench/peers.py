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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import faiss
import numpy as np
import torch
from record import finish
from torch.nn.functional import cross_entropy

from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.export.models.registry import MODELS, build
from edgekit.export.named import default_shape, export_named
from edgekit.export.settings import Calibration, Coding, NamedNetwork
from edgekit.export.split import split
from edgekit.launch.flags import as_flags
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import split_links
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
        self._socket = connection
        self.sent = self.received = 0

    def send(self, n: int, *parts: bytes) -> None:
        frame = HEAD.pack(n, *(len(part) for part in (*parts, b"")[:2])) + b"".join(parts)
        self._socket.sendall(frame)
        self.sent += len(frame)

    def recv(self) -> tuple[int, bytes, bytes] | None:
        """None when the other end has closed."""
        head = self._exactly(HEAD.size)
        if head is None:
            return None
        n, *sizes = HEAD.unpack(head)
        first, second = (self._exactly(size) or b"" for size in sizes)
        self.received += HEAD.size + sum(sizes)
        return n, first, second

    def _exactly(self, size: int) -> bytes | None:
        parts, missing = [], size
        while missing:
            part = self._socket.recv(missing)
            if not part:
                return None
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


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
        rows = np.ascontiguousarray(feature.transpose(0, 2, 3, 1).reshape(-1, self._shape[0]))
        return self._quantiser.compute_codes(rows).tobytes()

    def decode(self, payload: bytes, n: int) -> np.ndarray:
        codes = np.frombuffer(payload, np.uint8).reshape(-1, self._quantiser.code_size)
        c, h, w = self._shape
        # Written over with another signature when faiss is imported.
        decode: Any = self._quantiser.decode
        rows: np.ndarray = decode(codes)
        return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)

    def train(self, feature: np.ndarray) -> None:
        rows = np.ascontiguousarray(feature.transpose(0, 2, 3, 1).reshape(-1, self._shape[0]))
        self._quantiser.train(rows)
        np.save(self._codebook, faiss.vector_to_array(self._quantiser.centroids))


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


def serve(options: argparse.Namespace) -> None:
    """A peer's server: one device, until it closes."""
    torch.set_num_threads(1)
    _, back, shape, (_, first) = halves(options)
    codec = coder(options, shape)
    if options.peer == "faiss":
        codec.train(first)
    optimizer = sgd(back, options.lr)
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
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
    """A peer's device: trains for the time asked, and prints what came of it."""
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
    sys.stdout.write(json.dumps(figures) + "\n")


def peer_cell(peer: str, link: Any, options: argparse.Namespace, cores: Any, scratch: str) -> dict[str, float]:
    """One measurement of a PyTorch peer."""
    flags = [options.model, "--dataset", options.dataset, "--batch", str(options.batch), "--peer", peer]
    for name in ("cut", "data", "limit", "lr", "seconds", "warm_up"):
        if getattr(options, name) is not None:
            flags += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    command = [sys.executable, __file__, *flags, "--codebook", os.path.join(scratch, "codebook.npy")]
    with ExitStack() as stack:
        server = stack.enter_context(_start([*command, "--role", "server"], cores[1] if cores else None))
        assert server.stdout is not None
        address = f"127.0.0.1:{int(server.stdout.readline())}"
        if link is not None:
            address = f"127.0.0.1:{stack.enter_context(LinkEmulator(link, address)).port}"
        process = stack.enter_context(
            _start([*command, "--role", "device", "--server", address], cores[0] if cores else None)
        )
        told = process.communicate()[0]
        if process.returncode:
            raise SystemExit(f"the device of {peer} ended with exit code {process.returncode}")
        figures: dict[str, float] = json.loads(told)
    return figures


@contextmanager
def _start(command: list[str], cores: Any) -> "Iterator[subprocess.Popen[str]]":
    """A process that is killed, if it has not ended, when its `with` does."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def compare(options: argparse.Namespace) -> None:
    """All peers, in turn, and the record."""
    methods, links, cores = tuple(parse_list(options.codecs)), split_links(options.links), two_sides()
    dataset = registry.load(options.dataset, options.data, options.limit, 0)
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        bundles = {}
        for method in methods:
            bundles[method.name] = os.path.join(scratch, method.name)
            codec = feature_codec(method.codec, method.config)
            export_named(
                bundles[method.name],
                NamedNetwork(options.model, options.cut),
                Calibration(dataset),
                Coding(codec),
                overwrite=True,
            )
        given = {"dataset": options.dataset, "data": options.data, "limit": options.limit}
        flags = as_flags(given)
        plan = Plan(methods, bundles, links, (1,), options.repeats, options.seconds, options.warm_up, options.batch,
                    flags, ("--lr", str(options.lr)), cores)  # fmt: skip
        with bench(plan, {}) as ready:
            for repeat in range(options.repeats):
                for name, link in links.items():
                    for peer in ("fp16", "faiss"):
                        cell = peer_cell(peer, link, options, cores, scratch)
                        cells.append({"peer": peer, "link": name, "repeat": repeat, **cell})
                    for method in methods:
                        found = ready.cell(repeat, name, 1, method)
                        up, down = (sum(found["bytes_per_image"][way].values()) for way in ("up", "down"))
                        rates = {"images_per_s": found["images_per_s"], "bytes_up": up, "bytes_down": down}
                        cells.append({"peer": method.name, "link": name, "repeat": repeat, **rates})
                    for cell in cells[-2 - len(methods) :]:
                        sys.stderr.write(f"{cell['peer']} over {name}: {cell['images_per_s']:.1f} images/s\n")
    finish({"command": ["python", *sys.argv], "machine": describe(), "methods": {m.name: m.text for m in methods},
            "model": options.model, "cut": options.cut, "batch": options.batch, "results": _medians(cells),
            "cells": cells}, options.out)  # fmt: skip


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cut")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--codecs", default="uq,sgq")
    parser.add_argument("--links", default="1mbit,10mbit,100mbit")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--out")
    for name in ("role", "peer", "server", "codebook"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    {"server": serve, "device": device, None: compare}[options.role](options)


if __name__ == "__main__":
    main()
