"""Every codec, to bytes and back, on another Python or another processor: is all of it as on this machine?"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import edgekit
from edgekit import tensorfile
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import FEATURES, GRADIENTS, UPDATES, feature_codec, gradient_codec

#: Every setting that changes what is computed or written.
FEATURE_CODECS: list[tuple[str, dict[str, Any]]] = [
    ("raw", {}), ("uniform", {"bits": 4}), ("uniform", {"bits": 3}), ("slicing", {}), ("topk", {}),
    ("product", {"groups": 4}), ("sgq", {"groups": 4}), ("sgq", {"groups": 4, "weighted": True}),
    ("sgq", {"groups": 4, "bits": 3}), ("sgq", {"groups": 4, "coding": "context"}),
    ("sgq", {"groups": 4, "coding": "temporal"}),
]  # fmt: skip
GRADIENT_CODECS = [
    ("raw", {}), ("stochastic", {}), ("ternary", {}), ("sparse", {}), ("sparse", {"step": 1}), ("vq", {"groups": 4}),
    ("vq", {"groups": 4, "exact": False}), ("residual", {}), ("sampled", {}),
]  # fmt: skip
#: Packs matrix products of floats, whose last bits are each processor's own: only what it makes of bytes is compared.
BY_PRODUCTS = ("dct", {"zone": 1})
UPDATE_CODECS: list[tuple[str, dict[str, Any]]] = [
    ("fedavg", {}), ("quantised", {}), ("quantised", {"step": 1}), ("terngrad", {}), ("stc", {}),
    ("dgc", {"keep": 0.01, "momentum": 0.9, "clip": 50, "warmup": 2}), ("dhqc", {}), ("dhqc", {"location": "mean"}),
    ("fsfl", {"feedback": True}), ("fsfl", {"sparsity": 0.96}),
]  # fmt: skip

#: Codes, gradients and updates through every codec, to bytes and back; the last line printed says by which kernels.
PROGRAM = """
import json
import sys
import numpy as np
from edgekit import tensorfile
from edgekit.codecs.entropy import kernels
from edgekit.codecs.registry import feature_codec, gradient_codec, update_codec

given, result, features, gradients, products, updates = sys.argv[1:]
with open(given, "rb") as file:
    given = tensorfile.loads(file.read())
arrays = {}
for number, (codec_id, config) in enumerate(json.loads(features)):
    codec = feature_codec(codec_id, config)
    prefix = "tables.{}.".format(number)
    tables = {name[len(prefix) :]: array for name, array in given.items() if name.startswith(prefix)}
    sender, receiver = codec.stream(), codec.stream()
    for batch, feature in enumerate(given["features"]):
        codes = codec.quantize(feature[:, codec.order(feature.shape[1], tables)], tables)
        images = (3 * batch + np.arange(len(feature))) % 11
        payload = sender.pack(codes, images)
        symbols, arrived = receiver.unpack(payload, feature.shape)
        where = "{!r} {} ".format(codec, batch)
        arrays[where + "bytes"] = np.frombuffer(payload, dtype=np.uint8)
        arrays.update({where + "codes " + name: array for name, array in codes.items()})
        arrays.update({where + "symbols " + name: array for name, array in symbols.items()})
        arrays[where + "feature"] = codec.dequantize(symbols, tables)
        sender.update(codes, images)
        receiver.update(symbols, arrived)
    moves = given.get("moves.{}".format(number))
    if moves is not None:
        arrays["{!r} tables".format(codec)] = codec.patch(tables, moves.tobytes())["codebook"]
for codec_id, config in json.loads(gradients):
    codec = gradient_codec(codec_id, config)
    for masked in (False, True):
        mask = given["mask"].astype(bool) if masked else None
        payload = codec.pack(given["gradient"], mask, np.random.Generator(np.random.PCG64(1)))
        where = "{!r} masked {} ".format(codec, masked)
        arrays[where + "bytes"] = np.frombuffer(payload, dtype=np.uint8)
        arrays[where + "gradient"] = codec.unpack(payload, given["gradient"].shape, mask)
codec_id, config = json.loads(products)
arrays["by products"] = gradient_codec(codec_id, config).unpack(
    given["products"].tobytes(), given["gradient"].shape, None
)
update = {name: given["update." + name] for name in ("weight", "bias", "scale")}
for codec_id, config in json.loads(updates):
    sender = update_codec(codec_id, config).sender()
    for time in range(2):
        payload, arrives = sender.send(update, np.random.Generator(np.random.PCG64(1)))
        where = "{!r} time {} ".format(sender.codec, time)
        arrays[where + "bytes"] = np.frombuffer(payload, dtype=np.uint8)
        arrays.update({where + "update " + name: array for name, array in arrives.items()})
tensorfile.write(result, arrays)
print(kernels.choice().name)
"""
#: Of this machine, with the kernels of numpy, which are the reference.
HERE = {
    **os.environ, "PYTHONPATH": str(Path(edgekit.__file__).parent.parent), "OMP_NUM_THREADS": "1",
    "EDGEKIT_CODER": "numpy",
}  # fmt: skip


def given() -> Arrays:
    """What the codecs are given."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 8, 16, 6, 5)).clip(0).astype(np.float32)
    gradient = (1e-3 * rng.standard_normal((8, 16, 6, 5))).astype(np.float32)
    products = gradient_codec(*BY_PRODUCTS).pack(gradient, None, rng)
    arrays: Arrays = {"features": features, "gradient": gradient, "mask": features[0] > 0}
    arrays["products"] = np.frombuffer(products, dtype=np.uint8)
    shapes = {"weight": (32, 16, 3, 3), "bias": (32,), "scale": ()}
    arrays.update(
        {f"update.{name}": np.asarray(rng.laplace(size=shape), dtype=np.float32) for name, shape in shapes.items()}
    )
    for number, (codec_id, config) in enumerate(FEATURE_CODECS):
        significance = rng.random(16).astype(np.float32) if config.get("weighted") else None
        codec = feature_codec(codec_id, config)
        tables = codec.calibrate(features[0], 0, significance)
        arrays.update({f"tables.{number}.{name}": array for name, array in tables.items()})
        if "codebook" in tables:
            codebook = tables["codebook"] + np.float32(0.2 * rng.standard_normal(tables["codebook"].shape))
            moves = codec.diff(tables, {**tables, "codebook": codebook}, 0.1)
            arrays[f"moves.{number}"] = np.frombuffer(moves, dtype=np.uint8)
    return arrays


def through(python: list[str], environment: dict[str, str], arrays: Arrays, folder: Path) -> Arrays:
    """What PROGRAM writes where `python` are the words that start it, and EDGEKIT_CODER says which kernels it uses."""
    source, result = folder / "given", folder / "result"
    tensorfile.write(str(source), arrays)
    lists = [json.dumps(each) for each in (FEATURE_CODECS, GRADIENT_CODECS, BY_PRODUCTS, UPDATE_CODECS)]
    command = [*python, "-c", PROGRAM, str(source), str(result), *lists]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [environment["EDGEKIT_CODER"]]
    return tensorfile.loads(result.read_bytes())


def check_equal(found: Arrays, arrays: Arrays, folder: Path) -> None:
    """Whether `found` is what this machine's numpy makes of `arrays`, of every codec that there is."""
    assert {codec_id for codec_id, _ in FEATURE_CODECS} == set(FEATURES)
    assert {codec_id for codec_id, _ in [*GRADIENT_CODECS, BY_PRODUCTS]} == set(GRADIENTS)
    assert {codec_id for codec_id, _ in UPDATE_CODECS} == set(UPDATES)
    host = through([sys.executable], HERE, arrays, folder)
    assert found.keys() == host.keys() and len(found) > 150
    close, exact = found.pop("by products"), host.pop("by products")
    np.testing.assert_allclose(close, exact, atol=1e-6 * np.abs(exact).max())
    assert [name for name in host if found[name].tobytes() != host[name].tobytes()] == []
    integers = [name for name in host if " codes " in name and host[name].dtype == np.int32]
    assert all(np.array_equal(found[name], host[name.replace(" codes ", " symbols ")]) for name in integers)
