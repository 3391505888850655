"""The messages of the line: one class for each kind, its fields in words, its constructor and its parser.

::

    device                  server                device                  server
    Hello    ------------>                        Evaluate ------------>
             <------------  Welcome                        <------------  Result
    Feature  ------------>                        Bye      ------------>
             <------------  Gradient                       <------------  Ack
    Codebook ------------>                        Ping     ------------>
             <------------  Ack                            <------------  Pong
    Update   ------------>                        Tested   ------------>
             <------------  Weights, or Save               <------------  Tally
    Saved    ------------>                        Resume   ------------>
             <------------  Ack                            <------------  Resumed

Every message of a session has one answer, in order. So when a line breaks, both ends know by counting what was lost:
Resume and Resumed, the first on the next line, say how far each of them came.

Hello, Feature, Update, Tested, Saved and Bye may wait for other devices before they are answered. Error answers any
message that the server refuses. Where a field lies in a frame (`edgekit.line.frame`) is written in `LAYOUTS`: some keys
of the header are short, because they travel with every batch.

>>> encode(Ack(session=1, step=2)).hex()
'454b57020800000001000000020000000000000006fef7fd'
>>> decode(encode(Ack(session=3)))
Ack(session=3, step=0)
"""

from typing import Any, Dict, NamedTuple, Optional, Sequence, Type, TypeVar, Union

from edgekit.errors import PayloadError
from edgekit.line import frame
from edgekit.line.frame import HEAD_SIZE, Message
from edgekit.line.joining import NO_LIFE as NO_LIFE
from edgekit.line.joining import NOT_BACK as NOT_BACK
from edgekit.line.joining import Bye as Bye
from edgekit.line.joining import Hello as Hello
from edgekit.line.joining import Ping as Ping
from edgekit.line.joining import Pong as Pong
from edgekit.line.joining import Resume as Resume
from edgekit.line.joining import Resumed as Resumed
from edgekit.line.joining import Welcome as Welcome
from edgekit.line.layout import Layout
from edgekit.line.names import name_error

#: Most images, steps and epochs that a device may plan.
MOST_PLANNED = (1 << 32) - 1
#: The largest share of the variance that a device tells as missing: noise in its place is three times as long as the
#: signal that is left.
MOST_MISSING = 0.9


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
    #: Learning rate of the device's step.
    rate: float
    #: What the server noticed about this device. Where the batch was not learned from there is no gradient either.
    warning: str = ""
    #: How far what arrives takes the front half's gradient from what it would be, by `edgekit.server.bound`; left out
    #: at steps where it was not measured.
    error: Optional[float] = None
    #: Whether the device is to learn from its local loss alone: the server did learn, and sends no gradient this time.
    local_only: bool = False
    #: The device is to save its state under this label once nothing is in flight, and to answer Saved; 0: it is not.
    save: int = 0

    @property
    def learned(self) -> bool:
        """Whether the batch was learned from, and not left out."""
        return bool(self.gradient) or self.local_only


class Codebook(NamedTuple):
    """device -> server: the codec tables that moved. Answered by Ack."""

    session: int
    #: The version that the tables have with this update.
    version: int
    #: Bytes of `FeatureCodec.diff`.
    update: bytes


class Update(NamedTuple):
    """device -> server: what the device learned since the last round. Answered by Weights, when all have come."""

    session: int
    #: Number of the round.
    step: int
    #: Images learned from since the last round, and those that the device still plans.
    images: int
    left: int
    #: Bytes of the update codec, or none: nothing was learned, or front halves are not averaged.
    update: bytes
    #: Whether the device tests the new weights before it goes on.
    test: bool = False
    #: Of the bytes of `update`, those at its end that are of the layers that only rounds before a test carry;
    #: `edgekit.carried.NO_REST`: there are none of these.
    rest: int = -1


class Weights(NamedTuple):
    """server -> device: the average of the front halves."""

    session: int
    #: Number of the next round.
    step: int
    #: Bytes of the update codec, from the weights of the last round; or the weights themselves where `whole`.
    update: bytes
    #: Bytes of `FeatureCodec.diff`: the mean of the devices' codebooks, which is their next version; or none.
    tables: bytes
    whole: bool = False
    #: See `Welcome.resting`.
    resting: bool = False
    #: As `Update.rest`.
    rest: int = -1


class Save(NamedTuple):
    """server -> device, in the place of Weights: save first. The device answers Saved, and sends the update again."""

    session: int
    #: The label, see `Gradient.save`.
    step: int


class Saved(NamedTuple):
    """device -> server: its state is saved. Answered by Ack, whose step is the label where all have saved, else 0."""

    session: int
    step: int
    #: Whether it could be.
    done: bool = True


class Evaluate(NamedTuple):
    """device -> server: the coded feature of some test images, and their labels; nothing is learned from them."""

    session: int
    step: int
    tables: int
    images: int
    labels: bytes
    codes: bytes
    #: Whether the images are of the validation split, by which the best pair is chosen, and not of the test split.
    validation: bool = False


class Result(NamedTuple):
    """server -> device: how the test images were classified."""

    session: int
    step: int
    #: Mean cross entropy.
    loss: float
    #: Seconds that the server worked on them.
    seconds: float
    #: Classes, as `edgekit.line.labels` packs them.
    predicted: bytes


class Tested(NamedTuple):
    """device -> server: all `Evaluate` of this test are sent. Answered by Tally, when all that test are done."""

    session: int
    #: Epoch that the test came after.
    step: int


class Tally(NamedTuple):
    """server -> device: what the test came to over all devices that tested the same pair of halves."""

    session: int
    step: int
    images: int
    correct: int
    #: Mean cross entropy.
    loss: float
    #: Whether no test before came to more.
    best: bool


class Ack(NamedTuple):
    """server -> device: done."""

    session: int = 0
    #: Step or version of the message that it answers.
    step: int = 0


class Error(NamedTuple):
    """server -> device: the message was refused."""

    session: int
    step: int
    #: Exit code of the error's class, see `edgekit.errors`.
    code: int
    reason: str


AnyMessage = Union[
    Hello, Welcome, Feature, Gradient, Codebook, Evaluate, Result, Ack, Bye, Error, Ping, Pong, Update, Weights,
    Tested, Tally, Resume, Resumed, Save, Saved,
]  # fmt: skip
M = TypeVar(
    "M", Hello, Welcome, Feature, Gradient, Codebook, Evaluate, Result, Ack, Bye, Error, Ping, Pong, Update, Weights,
    Tested, Tally, Resume, Resumed, Save, Saved,
)  # fmt: skip


#: Kind, as in `frame.KINDS` -> layout.
LAYOUTS = {
    "hello": Layout(Hello),
    "welcome": Layout(
        Welcome,
        {
            "gradient_codec": "gradient.id",
            "gradient_config": "gradient.config",
            "optimizer": "optimizer.name",
            "momentum": "optimizer.momentum",
            "weight_decay": "optimizer.weight_decay",
            "update_codec": "update.id",
            "update_config": "update.config",
            "update_layers": "update.layers",
            "down_codec": "down.id",
            "down_config": "down.config",
        },
    ),
    "feature": Layout(Feature, {"tables": "v", "missing": "d", "images": "n"}),
    "gradient": Layout(
        Gradient,
        {
            "correct": "right",
            "deviation": "dev",
            "seconds": "s",
            "rate": "lr",
            "error": "err",
            "local_only": "lo",
            "save": "sv",
        },
    ),
    "codebook": Layout(Codebook, step="version"),
    "evaluate": Layout(Evaluate, {"tables": "v", "images": "n"}),
    "result": Layout(Result, {"seconds": "s"}),
    "ack": Layout(Ack),
    "bye": Layout(Bye),
    "error": Layout(Error, {"reason": "message"}),
    "ping": Layout(Ping),
    "pong": Layout(Pong),
    "update": Layout(Update, {"images": "n"}),
    "weights": Layout(Weights),
    "tested": Layout(Tested),
    "tally": Layout(Tally, {"images": "n", "correct": "right"}),
    "resume": Layout(Resume),
    "resumed": Layout(Resumed),
    "save": Layout(Save),
    "saved": Layout(Saved),
}
KIND_OF = {layout.message: kind for kind, layout in LAYOUTS.items()}
#: Fields that are 0 to MOST_PLANNED.
COUNTS: Dict[Type[Any], Sequence[str]] = {
    Hello: ("images", "steps", "epochs", "window"),
    Update: ("images", "left"),
    Welcome: ("steps", "epoch", "round", "rounds", "round_epochs", "save"),
    Gradient: ("save",),
}


def pack(message: AnyMessage) -> Message:
    """`message` as a frame has it."""
    kind = KIND_OF[type(message)]
    return LAYOUTS[kind].pack(kind, message)


def parse(message: Message) -> AnyMessage:
    """The message of a frame's content. PayloadError, naming the field, when it is not as its class says."""
    parsed: AnyMessage = LAYOUTS[message.kind].parse(message)
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


def _check_names(what: str, names: Sequence[Any]) -> None:
    """PayloadError, naming `what`, unless all `names` are texts."""
    if not all(isinstance(name, str) for name in names):
        raise PayloadError("{} is {!r}, expected names".format(what, names), HEAD_SIZE)


def _check(message: AnyMessage) -> None:
    """PayloadError for values that are of their type and still make no sense."""
    for name in COUNTS.get(type(message), ()):
        told = "{} message: '{}'".format(KIND_OF[type(message)], name)
        check_count(getattr(message, name), MOST_PLANNED, told)
    if isinstance(message, Hello):
        wrong = name_error(message.device)
        if wrong:
            raise PayloadError("hello message: {}".format(wrong), HEAD_SIZE)
        _check_names("hello message: 'classes'", message.classes)
    elif isinstance(message, (Update, Weights)):
        if not -1 <= message.rest <= len(message.update):
            told = "{} message: 'rest' is {}, expected -1 to {}, the bytes of the update"
            raise PayloadError(told.format(KIND_OF[type(message)], message.rest, len(message.update)), HEAD_SIZE)
    elif isinstance(message, Welcome):
        _check_names("welcome message: 'update_layers'", message.update_layers)
        if message.round_seconds < 0:
            told = "welcome message: 'round_seconds' is {}, expected 0 or more"
            raise PayloadError(told.format(message.round_seconds), HEAD_SIZE)
        if message.local_loss < 0:
            told = "welcome message: 'local_loss' is {}, expected 0 or more"
            raise PayloadError(told.format(message.local_loss), HEAD_SIZE)
    elif isinstance(message, Gradient) and message.local_only and message.gradient:
        told = "gradient message: a gradient of {} B, and 'local_only', which says that there is none"
        raise PayloadError(told.format(len(message.gradient)), HEAD_SIZE)
    elif isinstance(message, Tally):
        check_count(message.correct, message.images, "tally message: 'correct'")
    elif isinstance(message, Feature) and message.missing is not None and not 0 <= message.missing <= MOST_MISSING:
        told = "feature message: 'missing' is {}, expected 0 to {}"
        raise PayloadError(told.format(message.missing, MOST_MISSING), HEAD_SIZE)
    elif isinstance(message, Pong) and not (message.bundle + message.version).isprintable():
        raise PayloadError("pong message: it names a bundle or a version that cannot be shown", HEAD_SIZE)
