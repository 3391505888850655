"""What `bench/fuzz_inputs.py` feeds with bytes: every reader of bytes from outside, with examples of what it reads.

A target's function returns the examples, and what reads one input. Errors of edgekit are what readers may say.
"""

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit import statefile, tensorfile
from edgekit.bundle import MANIFEST, Bundle, open_bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.entropy import kernels
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.features.uniform import Uniform
from edgekit.codecs.registry import FEATURES, GRADIENTS, UPDATES, feature_codec, gradient_codec, update_codec
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.data import images, registry
from edgekit.deploy import answer
from edgekit.errors import PayloadError
from edgekit.identity import layout
from edgekit.identity.register import open_register
from edgekit.line import frame, messages
from edgekit.line.frame import KINDS, Message
from edgekit.report import records
from edgekit.runtime import cache, onnxfile
from edgekit.server.calibrate import calibrator
from edgekit.server.policy import Every, RoundPolicy
from edgekit.server.program import load_program
from edgekit.server.service import Service
from edgekit.server.setup import Setup
from edgekit.server.streams import Streams
from edgekit.server.train import BackHalf, OptimizerConfig
from tests.conftest import export_small
from tests.line.test_messages import EXAMPLES
from tests.server.conftest import Back, archive

Read = Callable[[bytes], object]
Target = tuple[list[bytes], Read]
SHAPE = (3, 16, 4, 4)
#: Settings beside each codec's own.
MORE: list[tuple[str, dict[str, Any]]] = [
    ("sgq", {"groups": 2, "bits": 3}), ("sgq", {"coding": "context"}), ("sgq", {"coding": "temporal"}),
    ("uniform", {"bits": 5}), ("product", {"groups": 4, "bits": 8}),
]  # fmt: skip
OF_TWO_CHANNELS: dict[str, dict[str, Any]] = {
    "vq": {"groups": 2}, "residual": {"first": ["vq", {"groups": 2, "exact": False}], "second": ["sparse", {}]},
}  # fmt: skip
WEIGHTS: dict[str, tuple[int, ...]] = {"weight": (6, 3, 3, 3), "bias": (6,), "scalar": (), "none": (0, 3)}


def frames() -> Target:
    """Frames, and the messages in them, of both directions. Behind an odd byte length and checksum are put right."""
    examples = [messages.encode(example) for example, _ in EXAMPLES]

    def read(data: bytes) -> None:
        given = data[1:]
        if data[:1] and data[0] % 2 and len(given) >= frame.HEAD_SIZE:
            head, body = given[:16] + struct.pack("<I", len(given) - frame.HEAD_SIZE), given[frame.HEAD_SIZE :]
            given = head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body
        messages.decode(given)

    return [first + example for example in examples for first in (b"\0", b"\1")], read


def features() -> Target:
    """Payloads of feature codecs at ends of lines that are new, or have seen a batch; both kinds of kernels."""
    rng = np.random.default_rng(0)
    feature = np.maximum(rng.normal(size=SHAPE), 0).astype(np.float32)
    ends: list[tuple[Any, Arrays, Any]] = []
    examples = []
    for name, settings in [(name, {}) for name in FEATURES] + MORE:
        codec = feature_codec(name, settings)
        tables = codec.calibrate(feature, 0)
        codes = codec.quantize(np.ascontiguousarray(feature[:, codec.order(SHAPE[1], tables)]), tables)
        new, learned = codec.stream(), codec.stream()
        examples += [bytes([2 * len(ends)]) + new.pack(codes, np.arange(3))]
        learned.unpack(learned.pack(codes, np.arange(3)), SHAPE)
        if name not in ("topk",):
            learned.update(codes, np.arange(3))
            examples.append(bytes([2 * len(ends) + 1]) + learned.pack(codes, np.arange(3)))
        ends.append((codec, tables, learned))

    def read(data: bytes) -> None:
        which = data[0] % (4 * len(ends)) if data else 0
        codec, tables, learned = ends[which // 2 % len(ends)]
        with kernels.using("numpy" if which >= 2 * len(ends) else "native"):
            codes, _ = (learned if which % 2 else codec.stream()).unpack(data[1:], SHAPE)
        codec.dequantize(codes, tables)

    return examples, read


def gradients() -> Target:
    """Payloads of gradient codecs, with and without a mask."""
    codecs = [gradient_codec(name, OF_TWO_CHANNELS.get(name, {})) for name in GRADIENTS]
    shape, rng = (3, 2, 4, 4), np.random.default_rng(0)
    values, mask = rng.laplace(size=shape).astype(np.float32), rng.random(shape) < 0.5
    examples = [
        bytes([2 * i + masked]) + codec.pack(values, mask if masked else None, rng)
        for i, codec in enumerate(codecs)
        for masked in (0, 1)
    ]

    def read(data: bytes) -> None:
        which = data[0] % (4 * len(codecs)) if data else 0
        with kernels.using("numpy" if which >= 2 * len(codecs) else "native"):
            codecs[which // 2 % len(codecs)].unpack(data[1:], shape, mask if which % 2 else None)

    return examples, read


def updates() -> Target:
    """Payloads of update codecs, and of codebooks that moved."""
    codecs, rng = [update_codec(name, {}) for name in UPDATES], np.random.default_rng(0)
    moved = {name: rng.laplace(size=shape).astype(np.float32) for name, shape in WEIGHTS.items()}
    codec = SGQ(groups=4, bits=4)
    tables = codec.calibrate(np.maximum(rng.normal(size=SHAPE), 0).astype(np.float32), 0)
    new = dict(tables, codebook=tables["codebook"] + 0.1)
    examples = [bytes([i]) + each.pack(moved, rng) for i, each in enumerate(codecs)]
    examples += [bytes([len(codecs)]) + codec.diff(tables, new, tolerance) for tolerance in (0.0, 0.1)]

    def read(data: bytes) -> None:
        which = data[0] % (len(codecs) + 1) if data else 0
        if which < len(codecs):
            codecs[which].unpack(data[1:], WEIGHTS)
        else:
            codec.check_tables(SHAPE[1], codec.patch(tables, data[1:]))

    return examples, read


def tensors() -> Target:
    """Files of tensors, and what they say of themselves."""
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1, 0], bool),
        "c": np.zeros((0, 4), "i8"),
    }
    examples = [tensorfile.dumps(arrays, {"edgekit": "1"}), tensorfile.dumps({})]

    def read(data: bytes) -> None:
        tensorfile.metadata(data)
        tensorfile.loads(data)

    return examples, read


def small_bundle(folder: Path) -> Bundle:
    digits = images.fit(registry.load("digits", None), (1, 16, 16))
    return export_small(folder / "bundle", digits, "sgq", groups=4, bits=4)


def manifests() -> Target:
    """A bundle's manifest.json: with its files beside it, or without naming any."""
    folder = Path(tempfile.mkdtemp())
    bundle = small_bundle(folder)
    manifest = os.path.join(bundle.path, MANIFEST)
    whole = Path(manifest).read_bytes()
    examples = [json.dumps({**json.loads(whole), "files": {}}).encode(), whole]

    def read(data: bytes) -> None:
        with open(manifest, "wb") as file:
            file.write(data)
        opened = open_bundle(bundle.path)
        for name in opened.manifest["files"]:
            opened.read(name)

    return examples, read


def tables() -> Target:
    """A bundle whose manifest vouches for its tables, whatever they are."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = small_bundle(Path(scratch))
        examples = [bundle.read("tables.safetensors")]

    class Vouched(Bundle):
        def read(self, name: str) -> bytes:
            return given

    given = b""
    opened = Vouched("bundle", bundle.manifest, "")

    def read(data: bytes) -> None:
        nonlocal given
        given = data
        opened.tables()

    return examples, read


def graphs() -> Target:
    """ONNX graphs, as devices read them."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = small_bundle(Path(scratch))
        return [bundle.read(f"{name}.onnx") for name in ("front", "front_train", "front_grad")], onnxfile.load


def programs() -> Target:
    """Programs of the back half."""
    torch.manual_seed(0)
    return [archive(Back(), training) for training in (True, False)], lambda data: load_program(data, "back_train.pt2")


class Context:
    """A stream of gRPC's that holds."""

    def is_active(self) -> bool:
        return True

    def abort(self, code: object, told: str) -> None:
        raise PayloadError(told)


def service() -> Service:
    torch.manual_seed(0)
    module, optimizer = Back(), OptimizerConfig()
    state = {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}
    back = BackHalf.from_programs(archive(module, True), archive(module, False), state, torch.device("cpu"), optimizer)
    front = {"weight": np.zeros((2, 3), np.float32)}
    setup = Setup("b", Uniform(bits=4), {}, (8, 4, 4), 3, back, calibrator("ternary-masked", 0), optimizer, "constant",
                  front=front, learned=tuple(front))  # fmt: skip
    return Service(setup, rounds=RoundPolicy(Every(epochs=1), FedAvg()))


def hellos() -> Target:
    """Streams of frames, from hello on. Half of an input's pieces are frames; of the others frames are made, so that
    a checksum keeps nobody out."""
    codec, rng = Uniform(bits=4), np.random.default_rng(0)
    payload = codec.pack(codec.quantize(rng.random((4, 8, 4, 4)).astype(np.float32), {}))
    change = FedAvg().pack({"weight": np.ones((2, 3), np.float32)}, rng)
    hello = Message("hello", header={"bundle": "b", "device": "board", "images": 12, "steps": 3, "epochs": 1})
    said = [
        hello, Message("feature", 1, 0, {"n": 4, "v": 0}, (b"\0\1\2\0", payload)),
        Message("evaluate", 1, 0, {"n": 4, "v": 0}, (b"\0\1\2\0", payload)),
        Message("update", 1, 0, {"n": 4, "left": 8, "test": True}, (change,)), Message("tested", 1, 1),
        Message("bye", 1), Message("ping"), Message("resume", 1, 0, {"token": "0123456789abcdef"}),
    ]  # fmt: skip
    examples = [b"".join(made(each) for each in said[:n]) for n in range(1, 7)] + [made(each) for each in said[6:]]
    examples += [raw(frame.encode(hello)) + raw(frame.encode(said[1])), raw(b"EKW") + made(hello)]
    server = service()
    streams = Streams(server, 4)

    def read(data: bytes) -> None:
        # Frames are read ahead: before hello is answered it must be known which session it will begin.
        for answered in streams.answers(pieces(data, server.fleet.joined + 1), Context()):
            messages.decode(answered)

    return examples, read


def raw(given: bytes) -> bytes:
    """The piece of an input that is a frame."""
    return struct.pack("<BH", 0, len(given)) + given


def made(message: Message) -> bytes:
    """The piece of an input that a frame of `message` is made of."""
    header = json.dumps(message.header).encode()
    parts = b"".join(struct.pack("<H", len(part)) + part for part in message.parts)
    head = struct.pack(
        "<BBBBHB", 1, KINDS[message.kind], message.session, message.step, len(header), len(message.parts)
    )
    return head + header + parts


def pieces(data: bytes, first: int) -> Iterator[bytes]:
    """The frames of an input. Session 1 is the `first` one that begins."""
    at = 0

    def take(n: int) -> bytes:
        nonlocal at
        at += n
        return data[at - n : at]

    kinds = sorted(KINDS)
    while at < len(data):
        if take(1)[0] % 2 == 0:
            yield take(int.from_bytes(take(2), "little"))
            continue
        kind, session, step = (int.from_bytes(take(1), "little") for _ in range(3))
        size, count = int.from_bytes(take(2), "little"), int.from_bytes(take(1), "little") % 4
        try:
            header = json.loads(take(size))
        except (ValueError, RecursionError):
            header = {}
        parts = tuple(take(int.from_bytes(take(2), "little")) for _ in range(count))
        known = first if session == 1 else session
        name = next((name for name, number in KINDS.items() if number == kind), kinds[kind % len(kinds)])
        yield frame.encode(Message(name, known, step, header if isinstance(header, dict) else {}, parts))


def registers() -> Target:
    """The register of identities."""
    folder = tempfile.mkdtemp()
    entry = {"name": "board", "serial": "1f", "certificate": "ab", "key": "cd", "begins": 1.5, "ends": 2e9}
    examples = [json.dumps(value).encode() for value in ([], [entry], [entry, {**entry, "revoked": 3.0}])]

    def read(data: bytes) -> None:
        with open(os.path.join(folder, layout.REGISTER), "wb") as file:
            file.write(data)
        register = open_register(folder)
        register.find("ab")
        [each.counts(1e9) for each in register.entries]

    return examples, read


def states() -> Target:
    """Checkpoints and saves. Behind an odd byte the checksum is put right."""
    weights = [np.zeros((2, 3), np.float32), None]
    trees: list[Any] = [{"step": 3, "rate": 0.5, "weights": weights, "more": {"name": "é", "done": True}}, [], 1]
    examples = [first + statefile.dumps(tree) for tree in trees for first in (b"\0", b"\1")]

    def read(data: bytes) -> None:
        given = data[1:]
        if data[:1] and data[0] % 2:
            arrays, said = tensorfile.loads(given), tensorfile.metadata(given)
            said["check"] = str(statefile.checksum(said.get("tree", ""), arrays))
            given = tensorfile.dumps(arrays, said)
        statefile.loads(given)

    return examples, read


def kept() -> Target:
    """Files that say how far something is: engines that are cached, answers of boards, records."""
    record = b'{"event": "start", "version": 1}\n{"event": "epoch", "device": "d", "epoch": 1}\n'
    examples = [b"\0" + cache.pack({"model": "a"}, b"engine"), b"\1" + answer.MARK + b'{"pid": 1}', b"\2" + record]
    readers: list[Read] = [
        cache.unpack, lambda data: answer.parse(data, "board").get("pid", int),
        lambda data: records.parse(data, "record"),
    ]  # fmt: skip
    return examples, lambda data: readers[data[0] % len(readers) if data else 0](data[1:])


#: Target, and its share of all inputs.
TARGETS: dict[str, tuple[Callable[[], Target], float]] = {
    "hellos": (hellos, 0.02), "features": (features, 0.05), "gradients": (gradients, 0.12), "updates": (updates, 0.06),
    "graphs": (graphs, 0.03), "programs": (programs, 0.005), "frames": (frames, 0.4), "tensors": (tensors, 0.1),
    "manifests": (manifests, 0.06), "tables": (tables, 0.05), "registers": (registers, 0.035), "kept": (kept, 0.02),
    "states": (states, 0.05),
}  # fmt: skip
