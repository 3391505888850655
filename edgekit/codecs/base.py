"""The boundaries of compression: features up, gradients down, updates of weights both ways.

::

    feature (n,C,h,w) f32 --quantize--> codes {name: array} --pack--> bytes
    bytes --unpack--> codes --dequantize--> feature (n,C,h,w) f32
    gradient (n,C,h,w) f32 --pack--> bytes --unpack--> gradient
    update {name: array f32} --pack--> bytes --unpack--> update

`quantize` is what the exported graph computes on the device; the numpy version here is its reference.
Codecs are stateless: their configuration is their constructor's arguments, and what is learned (codebooks, the
order of channels) arrives as `tables`, named float arrays that live in the bundle and are versioned on the line.
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgekit.errors import Diverged, PayloadError, ShapeError
from edgekit.tensors import TensorSpec

Arrays = Dict[str, np.ndarray]


class Codec:
    """What all codecs have. Subclasses are registered in `edgekit.codecs.registry`."""

    #: Names a byte format for ever: a changed format takes a new id.
    codec_id = ""
    _arguments: Tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Once: `config` is asked for with every gradient.
        cls._arguments = tuple(inspect.signature(cls).parameters)

    @property
    def config(self) -> Dict[str, Any]:
        """The constructor's arguments, JSON values only: ``type(codec)(**codec.config)`` equals `codec`.

        They are read from the attributes of their names; a codec that keeps another thing there gives its own.
        """
        return {name: getattr(self, name) for name in self._arguments}

    def check(self, channels: int) -> None:
        """Raises UsageError when this configuration cannot code `channels` channels."""
        return None

    def __repr__(self) -> str:
        return "{}({})".format(type(self).__name__, ", ".join("{}={!r}".format(*kv) for kv in self.config.items()))


class FeatureCodec(Codec, ABC):
    """Feature at the cut <-> bytes."""

    @abstractmethod
    def code_specs(self, feature: TensorSpec) -> Tuple[TensorSpec, ...]:
        """What the graph emits for `feature` (n,C,h,w)."""

    @property
    def needs_significance(self) -> bool:
        """Whether `calibrate` must be given a significance."""
        return False

    def calibrate(self, features: np.ndarray, seed: int, significance: Optional[np.ndarray] = None) -> Arrays:
        """First tables from calibration features (n,C,h,w) f32; none for codecs that learn nothing.

        `significance` (C,) f32, not negative, says how much each channel matters to the loss.
        """
        return {}

    def check_tables(self, channels: int, tables: Arrays) -> None:
        """Raises ShapeError when `tables` are not those of a feature of `channels` channels."""
        return None

    def table_feeds(self, tables: Arrays) -> Arrays:
        """`tables` in the form the exported graph takes them as inputs, by input name."""
        return {}

    def order(self, channels: int, tables: Arrays) -> np.ndarray:
        """(C,) int64: position k of the coded feature holds channel ``order[k]`` of the network's feature."""
        return np.arange(channels, dtype=np.int64)

    @abstractmethod
    def formula_bits(self, feature: Sequence[int]) -> float:
        """Bits of one image's feature (C,h,w) by the papers' formula: no header, labels, tables or framing."""

    @abstractmethod
    def quantize(self, feature: np.ndarray, tables: Arrays) -> Arrays:
        """Codes of `feature` (n,C,h,w) f32, its channels already in coded order: numpy reference of the graph's ops."""

    @abstractmethod
    def pack(self, codes: Arrays) -> bytes:
        """Bytes of `codes`; runs on the device's CPU."""

    @abstractmethod
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Arrays:
        """Codes of a feature of `shape` (n,C,h,w). PayloadError with an offset on any other bytes, nothing else."""

    @abstractmethod
    def dequantize(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        """Feature (n,C,h,w) f32, channels in coded order."""

    def active(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        """(n,C,h,w) bool: where the decoded feature is not (nearly) zero, computed alike on both sides.

        The device's last ReLU is off about where this is False, so the gradient there need not be sent.
        """
        return np.asarray(self.dequantize(codes, tables) != 0)

    def diff(self, sent: Arrays, tables: Arrays, tolerance: float) -> bytes:
        """What the other side, which has `sent`, needs to follow `tables`; empty when they are within `tolerance`."""
        return b""

    def patch(self, sent: Arrays, payload: bytes) -> Arrays:
        """New tables from `sent` and the bytes of `diff`. PayloadError on any other bytes."""
        raise PayloadError("codec '{}' has no tables that could be updated".format(self.codec_id))

    def stream(self) -> "FeatureStream":
        """A new end of a line for these codes."""
        return FeatureStream(self)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.config == other.config

    def __hash__(self) -> int:
        return hash(repr(self))


class CodebookCodec(FeatureCodec):
    """A codec whose codes are indices into codebooks (vector quantisation), one codebook for each group of channels.

    Its codebooks follow the features while the front half learns, see `edgekit.codecs.codebook`. Tables are "codebook"
    (words, C) f32, columns in coded order, and "order" (C,) int64.
    """

    groups: int
    #: Codewords of each codebook.
    words: int
    #: How channels come into groups, see `edgekit.codecs.grouping`.
    grouping: str

    @abstractmethod
    def stripes(self, feature: np.ndarray) -> List[np.ndarray]:
        """Per group, the (n*h*w, C/G) stripes of `feature` (n,C,h,w), channels in coded order."""

    @abstractmethod
    def books(self, codebook: np.ndarray) -> np.ndarray:
        """(G, words, C/G) view of a table's codebook."""

    @abstractmethod
    def fit(self, feature: np.ndarray, tables: Arrays, rng: np.random.Generator) -> np.ndarray:
        """(words, C) codebook by k-means from `feature` (n,C,h,w), channels in the order of `tables`."""


class FeatureStream:
    """One end of a line of codes, with what a codec may learn from the codes before; this one learns nothing.

    Both ends call `update` with the codes of each training batch, in order: the server when it has trained on them, the
    device when the gradient came back. What is lost or comes again before moves neither. `images` (n,) are whole
    numbers from 0 below 2**32 that tell the training images apart; a stream that has use for them sends them too.
    """

    #: Most batches in flight that it keeps step with; None: any number.
    in_flight: Optional[int] = None
    #: Whether it keeps every image's codes to code its next ones by: a gain only where the image comes again unchanged.
    remembers = False

    def __init__(self, codec: FeatureCodec) -> None:
        self.codec = codec

    def pack(self, codes: Arrays, images: Optional[np.ndarray] = None) -> bytes:
        """Bytes of `codes`; nothing is learned yet."""
        return self.codec.pack(codes)

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Tuple[Arrays, Optional[np.ndarray]]:
        """Codes of a feature of `shape` (n,C,h,w), and the images' numbers where they were sent.

        PayloadError on any other bytes, nothing else.
        """
        return self.codec.unpack(payload, shape), None

    def update(self, codes: Arrays, images: Optional[np.ndarray] = None) -> None:
        """Learns from the codes of one training batch."""

    def reset(self, in_flight: int = 0) -> None:
        """Begins anew, where what was learned is of no use any more, as after a regrouping: the sender's end only.

        The next `in_flight` batches to learn from are from before.
        """

    def state(self) -> Dict[str, Any]:
        """What was learned, as a state (`edgekit.statefile`). No batch may be under way."""
        return {}

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`, which another end of the same codec gave."""


class GradientCodec(Codec, ABC):
    """Gradient at the cut <-> bytes."""

    #: True when ``E[unpack(pack(g))] == g`` over the random generator, for every g.
    unbiased = False
    #: Whether nothing arrives where the mask is False; a codec may instead send that part less exactly.
    drops = True

    @abstractmethod
    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        """Bytes of `gradient` (n,C,h,w) f32; where `mask` (same shape, bool) is False nothing is sent, or little."""

    def send(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> Tuple[bytes, float]:
        """The bytes of `pack`, and their deviation: ``||gradient - what arrives|| / ||gradient||``, 0 for zeros.

        A codec that knows it need not read its own bytes.
        """
        payload = self.pack(gradient, mask, rng)
        arrives = self.unpack(payload, gradient.shape, mask)
        norm = float(np.linalg.norm(gradient))
        return payload, float(np.linalg.norm(gradient - arrives)) / norm if norm else 0.0

    @abstractmethod
    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        """Gradient of `shape` (n,C,h,w) f32. PayloadError on any other bytes.

        Where `mask` is False it is zero if the codec drops that part.
        """

    def check_arrays(self, gradient: np.ndarray, mask: Optional[np.ndarray]) -> None:
        """Raises ShapeError unless `gradient` is (n,C,h,w) f32, and `mask`, if given, of the same shape and bool."""
        TensorSpec("gradient", "float32", (-1, -1, -1, -1)).check(gradient, repr(self))
        if mask is not None:
            TensorSpec("mask", "bool", gradient.shape).check(mask, repr(self))


class UpdateCodec(Codec, ABC):
    """Update of named weights, "now" less "at the last round" <-> bytes.

    Weights are of any shape, and go in order of name. Names and shapes are not sent: both ends know them.
    """

    @abstractmethod
    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        """Bytes of `update`, arrays f32. ShapeError for another dtype, Diverged for NaN or infinity."""

    @abstractmethod
    def unpack(self, payload: bytes, shapes: Dict[str, Tuple[int, ...]]) -> Arrays:
        """The update as arrays f32, finite, of exactly these names and shapes.

        PayloadError with an offset on any other bytes, nothing else.
        """

    @abstractmethod
    def formula_bits(self, shapes: Dict[str, Tuple[int, ...]]) -> float:
        """Bits of an update of `shapes` by the paper's formula: no framing. Where values matter, of normal ones."""

    def formula_bits_of(self, sent: Arrays) -> float:
        """The same of the update that arrives as `sent`, arrays f32: where how much is kept depends on the update."""
        return self.formula_bits({name: array.shape for name, array in sent.items()})

    @abstractmethod
    def sender(self, learns: bool = True) -> "UpdateSender":
        """A new sender's end of a line of updates; a receiver needs the codec alone.

        `learns`: whether this end learned what it sends. A server, which passes averages on, did not.
        """

    def check_update(self, update: Arrays) -> None:
        """Raises ShapeError unless all arrays of `update` are f32, and Diverged unless all are finite."""
        for name in sorted(update):
            array = update[name]
            TensorSpec(name, "float32", array.shape).check(array, repr(self))
            if not np.isfinite(array).all():
                raise Diverged("the update of weight '{}' is not finite: training diverged, lower --lr".format(name))


class UpdateSender:
    """The sender's end of a line of updates, with what a codec may keep from one to the next; this one keeps nothing.

    For codecs that leave nothing out, or of which what arrives is right on average.
    """

    def __init__(self, codec: UpdateCodec) -> None:
        self.codec = codec

    @property
    def state(self) -> Dict[str, Any]:
        """What is kept, copies, as a state (`edgekit.statefile`); {} before the first update. `restore` takes it."""
        return {}

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`, which another end of the same codec gave. ShapeError or Diverged where it is none."""
        if state:
            raise ShapeError(
                "a sender's state with {}: {!r} keeps nothing".format(", ".join(sorted(state)), self.codec)
            )

    def check(self, update: Arrays) -> None:
        """Raises what `send` raises for an `update` that is none; an end of several ends asks all before one sends."""
        self.codec.check_update(update)

    def send(self, update: Arrays, rng: np.random.Generator) -> Tuple[bytes, Arrays]:
        """The bytes of `update`, arrays f32, and what arrives of them, as f32.

        ShapeError where dtypes are not float32, or what is kept has other names or shapes; Diverged where there is a
        value that is not finite. After an error what is kept is as it was.
        """
        payload = self.codec.pack(update, rng)
        return payload, self.codec.unpack(payload, {name: array.shape for name, array in update.items()})
