"""One payload in the place of weights: what they are away from weights that the other end has.

Weights are arrays by name, as in a Flower `ArrayRecord`: floating point, which an update codec packs, and integers
(PyTorch's counts of batches), whose differences go without loss. Names, shapes and dtypes are not sent: both ends know
them.

======  ====  =============================================================================================
offset  size  field
======  ====  =============================================================================================
0       4     little-endian length n of the next field
4       n     zlib of the integers' differences, little-endian int64, in order of name; n is 0 without any
4+n     rest  the update codec's bytes
======  ====  =============================================================================================
"""

import json
import struct
import zlib
from typing import NamedTuple

import numpy as np

from edgekit.apart import Apart
from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.registry import update_codec
from edgekit.codecs.updates.flat import Shapes
from edgekit.errors import PayloadError, ShapeError, UsageError
from edgekit.federate.apart import by_kind
from edgekit.moves import LEAST_VARIANCE, moved

#: Says the format of a payload, as a Flower `Array` says how it is serialised.
FORMAT = "edgekit.v1"
#: No codec, where one could be spelled.
NONE = "-"
#: How PyTorch's names of running variances end: they stay positive (`edgekit.moves`).
VARIANCE = "running_var"
_LENGTH = struct.Struct("<I")


class Sent(NamedTuple):
    """A payload, and the weights that the receiver makes of it."""

    payload: bytes
    weights: Arrays


class Came(NamedTuple):
    """What a payload gives its receiver: the weights, and of them the update (f32) of those of floating point."""

    weights: Arrays
    update: Arrays


def pack(old: Arrays, new: Arrays, sender: UpdateSender, rng: np.random.Generator) -> Sent:
    """The payload that leads whoever has the weights `old` to `new`, or near it.

    What the codec leaves out stays with `sender`, for the next time, where the codec keeps it. ShapeError where the two
    are not alike, Diverged where `new` is not finite.
    """
    floats, whole = _kinds(old)
    check_like(old, new)
    update = {name: np.asarray(_f32(new[name]) - _f32(old[name])) for name in floats}
    packed, arrives = sender.send(update, rng)
    steps = {name: np.asarray(_i64(new[name]) - _i64(old[name])) for name in whole}
    coded = zlib.compress(b"".join(steps[name].astype("<i8").tobytes() for name in whole), 9) if whole else b""
    return Sent(_LENGTH.pack(len(coded)) + coded + packed, _moved(old, arrives, steps))


def unpack(old: Arrays, payload: bytes, codec: UpdateCodec) -> Came:
    """Where `payload` leads to from `old`, which stays as it is; the weights are in the order of `old`.

    PayloadError on any other bytes, nothing else.
    """
    floats, whole = _kinds(old)
    if len(payload) < _LENGTH.size:
        raise PayloadError(f"a payload of {len(payload)} B, expected at least {_LENGTH.size}", len(payload))
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    if end > len(payload):
        raise PayloadError(f"integers until byte {end} of a payload of {len(payload)} B", 0)
    steps = _integers(payload[_LENGTH.size : end], {name: old[name].shape for name in whole})
    try:
        update = codec.unpack(payload[end:], {name: old[name].shape for name in floats})
    except PayloadError as error:
        raise PayloadError(f"update: {error}", end + error.offset) from None
    with np.errstate(over="ignore"):
        new = _moved(old, update, steps)
    if not all(np.isfinite(new[name]).all() for name in floats):
        raise PayloadError("weights that are not finite come of it", end)
    return Came(new, update)


def floats_alone(packed: bytes) -> bytes:
    """The payload of weights without integers, whose update a codec `packed`."""
    return _LENGTH.pack(0) + packed


def check_like(old: Arrays, new: Arrays) -> None:
    """Raises ShapeError unless `new` has the names and shapes of `old`, and integers where it has them."""
    if set(old) != set(new):
        raise ShapeError(
            f"got weights {_some(set(new) - set(old))}, lacks {_some(set(old) - set(new))}: send what came"
        )
    for name, array in new.items():
        alike = (array.dtype.kind == "f") == (old[name].dtype.kind == "f") and array.dtype.kind in "fiub"
        if array.shape != old[name].shape or not alike:
            raise ShapeError(
                f"weight '{name}' is {array.dtype} {list(array.shape)}, expected {old[name].dtype} "
                f"{list(old[name].shape)} as it came"
            )


def as_came(old: Arrays, new: Arrays) -> Arrays:
    """`new` in the dtypes of `old`: averages of integers are none and are rounded, and variances stay positive.

    ShapeError for another shape.
    """
    came = {}
    for name, array in old.items():
        if name not in new or new[name].shape != array.shape:
            got = list(new[name].shape) if name in new else "nothing"
            raise ShapeError(f"the strategy gave {got} for weight '{name}', expected shape {list(array.shape)}")
        came[name] = (new[name] if array.dtype.kind == "f" else np.rint(new[name])).astype(array.dtype)
        if _is_variance(name):
            came[name] = np.maximum(came[name], array.dtype.type(LEAST_VARIANCE) * array)
    return came


def spelled(codec: UpdateCodec) -> str:
    """`codec` as the other end reads it (`codec_of`): one of `edgekit.codecs.registry`, or several of them apart."""
    codecs = list(codec.codecs.values()) if isinstance(codec, Apart) else [codec]
    return json.dumps([[each.codec_id, each.config] for each in codecs])


def codec_of(text: str) -> UpdateCodec:
    """The codec that `spelled` spelled. PayloadError for any other text, UsageError for a codec that there is not."""
    try:
        codecs = [update_codec(str(name), config) for name, config in json.loads(text)]
        return codecs[0] if len(codecs) == 1 else by_kind(*codecs)
    except UsageError:
        raise
    except (ValueError, TypeError, RecursionError):
        raise PayloadError(f"{text!r:.100} spells no update codec") from None


def generator(seed: int, number: int, client: int | None = None) -> np.random.Generator:
    """What draws in payload `number` of `client`, by its number, or of the server; none of them negative."""
    return np.random.default_rng((seed, number) if client is None else (seed, number, client))


def _kinds(weights: Arrays) -> tuple[list[str], list[str]]:
    """The names of floating-point arrays, and those of integers and bools, each in order."""
    kinds = {name: array.dtype.kind for name, array in sorted(weights.items())}
    for name, kind in kinds.items():
        if kind not in "fiub":
            raise ShapeError(f"weight '{name}' is {weights[name].dtype}: expected floating point, integers or bools")
    return [name for name in kinds if kinds[name] == "f"], [name for name in kinds if kinds[name] != "f"]


def _integers(coded: bytes, shapes: Shapes) -> Arrays:
    """The differences (int64) of `shapes`, in order of name, that `coded` holds."""
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes.values()]
    need = 8 * sum(sizes)
    reader, data = zlib.decompressobj(), b""
    if coded or shapes:
        try:
            # No more than is needed, whatever the bytes say.
            data = reader.decompress(coded, need + 1)
        except zlib.error as error:
            raise PayloadError(f"integers are not compressed by zlib: {error}", _LENGTH.size) from None
        if not reader.eof or reader.unused_data or len(data) != need or not shapes:
            raise PayloadError(f"integers of {len(data)} B or more, expected {need}", _LENGTH.size)
    values = np.split(np.frombuffer(data, dtype="<i8").astype(np.int64), np.cumsum(sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), values, strict=False)}


def _moved(old: Arrays, update: Arrays, steps: Arrays) -> Arrays:
    """`old` plus `update` (f32) and `steps` (int64), in the dtypes of `old`."""
    floats = moved({name: _f32(old[name]) for name in update}, update, filter(_is_variance, update))
    new = {}
    for name, array in old.items():
        found = floats[name] if name in floats else _i64(array) + steps[name]
        new[name] = np.asarray(found).astype(array.dtype)
    return new


def _is_variance(name: str) -> bool:
    return name.rpartition(".")[2] == VARIANCE


def _f32(array: np.ndarray) -> np.ndarray:
    # An overflow is told by the codec, which names the weight.
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _i64(array: np.ndarray) -> np.ndarray:
    # Differences beyond the range come back around it.
    return array.astype(np.int64, copy=False)


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) or "none"
