"""The messages of the line: one class for each kind, its fields in words, its constructor and its parser.

::

    device                  server                device                  server
    Hello    ------------>                        Evaluate ------------>
             <------------  Welcome                        <------------  Result
    Feature  ------------>                        Bye      ------------>
             <------------  Gradient                       <------------  Ack
    Codebook ------------>                        Ping     ------------>
             <------------  Ack                            <------------  Pong

Error answers any message that the server refuses. Where a field lies in a frame (`edgekit.line.frame`) is written in
`LAYOUTS`: some keys of the header are short, because they travel with every batch.

>>> encode(Ack(session=1, step=2)).hex()
'454b57010800000001000000020000000000000082a56dae'
>>> decode(encode(Bye(session=3)))
Bye(session=3)
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple, Type, TypeVar, Union

from edgekit.errors import PayloadError
from edgekit.line import frame
from edgekit.line.frame import HEAD_SIZE, Message

#: Most steps that a device may plan.
MOST_STEPS = (1 << 32) - 1
#: Longest device name, so that the messages that quote it fit a header.
LONGEST_NAME = 200
#: The largest share of the variance that a device tells as missing: noise in its place is three times as long as the
#: signal that is left.
MOST_MISSING = 0.9


class Hello(NamedTuple):
    """device -> server: asks for a session."""

    #: Digest of the device's bundle.
    bundle: str
    #: Name of the device.
    device: str
    #: Training batches that the device plans, for the schedule of the learning rate.
    steps: int


class Welcome(NamedTuple):
    """server -> device: the session, and how to train in it."""

    session: int
    #: Id and configuration of the gradient codec.
    gradient_codec: str
    gradient_config: Dict[str, Any]
    #: Whether the gradient codec is told where the decoded feature is active.
    masked: bool
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: str
    #: Whether `Feature.missing` is wanted. Left out when False.
    noise_filling: bool = False


class Feature(NamedTuple):
    """device -> server: the coded feature of one training batch, and its labels. Answered by Gradient."""

    session: int
    #: Number of the batch, from 0.
    step: int
    #: Version of the codec's tables that the codes are of.
    tables: int
    images: int
    #: Labels as `edgekit.line.labels` packs them, and codes as the session's `FeatureStream` packs them.
    labels: bytes
    codes: bytes
    #: Share of the feature's variance that quantising lost, 0 to MOST_MISSING. Left out where nobody asked for it.
    missing: Optional[float] = None


class Gradient(NamedTuple):
    """server -> device: the compressed gradient of the loss at the cut."""

    session: int
    step: int
    #: Mean cross entropy of the batch, and how many of its images were classified right.
    loss: float
    correct: int
    #: ||gradient - what arrives|| / ||gradient||.
    deviation: float
    #: Seconds that the server worked on the batch.
    seconds: float
    gradient: bytes


class Codebook(NamedTuple):
    """device -> server: the codec tables that moved. Answered by Ack."""

    session: int
    #: The version that the tables have with this update.
    version: int
    #: Bytes of `FeatureCodec.diff`.
    update: bytes


class Evaluate(NamedTuple):
    """device -> server: the coded feature of some test images, and their labels; nothing is learned from them."""

    session: int
    step: int
    tables: int
    images: int
    labels: bytes
    codes: bytes


class Result(NamedTuple):
    """server -> device: how well the test images were classified."""

    session: int
    step: int
    correct: int
    #: Mean cross entropy.
    loss: float
    images: int
    #: Seconds that the server worked on them.
    seconds: float


class Ack(NamedTuple):
    """server -> device: done."""

    session: int = 0
    #: Step or version of the message that it answers.
    step: int = 0


class Bye(NamedTuple):
    """device -> server: the session is over. Answered by Ack."""

    session: int


class Error(NamedTuple):
    """server -> device: the message was refused."""

    session: int
    step: int
    #: Exit code of the error's class, see `edgekit.errors`.
    code: int
    reason: str


class Ping(NamedTuple):
    """device -> server: are you there? No session is needed."""

    step: int


class Pong(NamedTuple):
    """server -> device: the answer to a ping."""

    step: int
    #: The server's clock, in seconds since 1970.
    time: float
    #: Digest of the server's bundle, and its version of edgekit.
    bundle: str
    version: str
    #: Devices in training.
    devices: int


AnyMessage = Union[
    Hello, Welcome, Feature, Gradient, Codebook, Evaluate, Result, Ack, Bye, Error, Ping, Pong
]  # fmt: skip
M = TypeVar("M", Hello, Welcome, Feature, Gradient, Codebook, Evaluate, Result, Ack, Bye, Error, Ping, Pong)


_PLAIN: Dict[Any, type] = {Optional[float]: float, Dict[str, Any]: dict}


class Layout:
    """How one class lies in a frame: fields that are bytes are its parts, in order, the others are in its header.

    `keys`: field -> its key in the header where that is another; a dot leads into an inner object. `step` is the field
    that is the frame's step id.
    """

    def __init__(self, message: Type[Any], keys: Optional[Dict[str, str]] = None, step: str = "step") -> None:
        self.message = message
        self.step = step
        kinds: Dict[str, Any] = dict(message.__annotations__)
        #: The fields that are the frame's parts.
        self.parts = [name for name, kind in kinds.items() if kind is bytes]
        #: Field -> (key, type) of what is in the header. A field that has its default is left out there.
        self.header: Dict[str, Tuple[str, type]] = {}
        for name, kind in kinds.items():
            if name not in ("session", step, *self.parts):
                self.header[name] = ((keys or {}).get(name, name), _PLAIN.get(kind) or kind)


#: Kind, as in `frame.KINDS` -> layout.
LAYOUTS = {
    "hello": Layout(Hello),
    "welcome": Layout(
        Welcome,
        {
            "gradient_codec": "gradient.id",
            "gradient_config": "gradient.config",
            "optimizer": "optimizer.name",
            "learning_rate": "optimizer.lr",
            "momentum": "optimizer.momentum",
            "weight_decay": "optimizer.weight_decay",
        },
    ),
    "feature": Layout(Feature, {"tables": "v", "missing": "d", "images": "n"}),
    "gradient": Layout(Gradient, {"correct": "right", "deviation": "dev", "seconds": "s"}),
    "codebook": Layout(Codebook, step="version"),
    "evaluate": Layout(Evaluate, {"tables": "v", "images": "n"}),
    "result": Layout(Result, {"correct": "right", "images": "n", "seconds": "s"}),
    "ack": Layout(Ack),
    "bye": Layout(Bye),
    "error": Layout(Error, {"reason": "message"}),
    "ping": Layout(Ping),
    "pong": Layout(Pong),
}
KIND_OF = {layout.message: kind for kind, layout in LAYOUTS.items()}


def pack(message: AnyMessage) -> Message:
    """`message` as a frame has it."""
    kind = KIND_OF[type(message)]
    layout = LAYOUTS[kind]
    header: Dict[str, Any] = {}
    defaults = layout.message._field_defaults
    for name, (key, _) in layout.header.items():
        value = getattr(message, name)
        if name not in defaults or value != defaults[name]:
            outer, _, inner = key.rpartition(".")
            (header.setdefault(outer, {}) if outer else header)[inner] = value
    parts = tuple(getattr(message, name) for name in layout.parts)
    return Message(kind, getattr(message, "session", 0), getattr(message, layout.step, 0), header, parts)


def parse(message: Message) -> AnyMessage:
    """The message of a frame's content. PayloadError, naming the field, when it is not as its class says."""
    layout = LAYOUTS[message.kind]
    if len(message.parts) != len(layout.parts):
        told = "{} message has {} parts, expected {}"
        raise PayloadError(told.format(message.kind, len(message.parts), len(layout.parts)), 5)
    values: Dict[str, Any] = dict(zip(layout.parts, message.parts))
    for name, (key, kind) in layout.header.items():
        outer, _, inner = key.rpartition(".")
        found = message.header.get(outer) if outer else message.header
        holder = found if isinstance(found, dict) else {}
        if inner in holder or name not in layout.message._field_defaults:
            values[name] = _checked(message.kind, name, key, holder.get(inner), kind)
    ids = {"session": message.session, layout.step: message.step}
    parsed: AnyMessage = layout.message(**values, **{name: ids[name] for name in ids if name in layout.message._fields})
    _check(parsed)
    return parsed


def encode(message: AnyMessage) -> bytes:
    """The frame of `message`. PayloadError when it exceeds a limit of frames."""
    return frame.encode(pack(message))


def decode(data: bytes) -> AnyMessage:
    """The message of a frame. Any bytes give a message or PayloadError, nothing else."""
    return parse(frame.decode(data))


def check_count(count: int, most: int, what: str) -> int:
    """`count`, or PayloadError, naming `what`, unless it is 0 to `most`."""
    if not 0 <= count <= most:
        raise PayloadError("{} is {}, expected 0 to {}".format(what, count, most), HEAD_SIZE)
    return count


def _checked(message: str, name: str, key: str, value: Any, kind: type) -> Any:
    """`value` as a `kind` (an int passes for a float, which must be finite); else PayloadError naming the field."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 1 << 53:
        value = float(value)
    finite = not isinstance(value, float) or abs(value) < float("inf")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or not finite:
        where = "'{}'".format(name) if name == key else "'{}' (header field '{}')".format(name, key)
        told = "{} message: {} is {!r}, expected {}"
        raise PayloadError(told.format(message, where, value, kind.__name__), HEAD_SIZE)
    return value


def _check(message: AnyMessage) -> None:
    """PayloadError for values that are of their type and still make no sense."""
    if isinstance(message, Hello):
        check_count(message.steps, MOST_STEPS, "hello message: 'steps'")
        if len(message.device) > LONGEST_NAME:
            told = "hello message: a device name of {} characters, expected at most {}"
            raise PayloadError(told.format(len(message.device), LONGEST_NAME), HEAD_SIZE)
    elif isinstance(message, Feature) and message.missing is not None and not 0 <= message.missing <= MOST_MISSING:
        told = "feature message: 'missing' is {}, expected 0 to {}"
        raise PayloadError(told.format(message.missing, MOST_MISSING), HEAD_SIZE)
    elif isinstance(message, Pong) and not (message.bundle + message.version).isprintable():
        raise PayloadError("pong message: it names a bundle or a version that cannot be shown", HEAD_SIZE)
