"""The messages by which a session begins, goes on over another line, and ends; and those of no session."""

from typing import Any, Dict, List, NamedTuple


class Hello(NamedTuple):
    """device -> server: asks for a session."""

    #: Digest of the device's bundle.
    bundle: str
    #: Name of the device, which no other one in training has.
    device: str
    #: Its training images, the fewest batches that it can take them in, and the epochs that it plans.
    images: int
    steps: int
    epochs: int
    #: Names of the classes that it has images of; none where the bundle does not name its classes.
    classes: List[str] = []  # noqa: RUF012 - never mutated; a NamedTuple default cannot be a factory
    #: Whether it knows of local losses: an older one would pass over what Welcome says of them.
    local: bool = False
    #: Most messages that it has without an answer at a time; 0: it does not come back when its line breaks.
    window: int = 0
    #: Whether it answers Save, and the `save` of Welcome and Gradient, with Saved.
    saves: bool = False
    #: Whether it knows of `Welcome.update_layers` and `Welcome.down_codec`.
    layers: bool = False


class Welcome(NamedTuple):
    """server -> device: the session, and how to train in it."""

    session: int
    #: Batches that the device makes of its images in an epoch, no fewer than it said.
    steps: int
    #: Id and configuration of the gradient codec.
    gradient_codec: str
    gradient_config: Dict[str, Any]
    #: Whether the gradient codec is told where the decoded feature is active.
    masked: bool
    optimizer: str
    momentum: float
    weight_decay: float
    #: The present weights, dense (`codecs.updates.fedavg`), and tables, as a safetensors file, where they are no longer
    #: the bundle's: the device came late.
    front: bytes
    tables: bytes
    #: Whether `Feature.missing` is wanted. Left out when False.
    noise_filling: bool = False
    #: Epochs that the run has done before.
    epoch: int = 0
    #: The number of the next round, and when there is one: so many in an epoch, or one after so many epochs or seconds.
    #: All three are 0 where front halves are not averaged.
    round: int = 0
    rounds: int = 0
    round_epochs: int = 0
    round_seconds: float = 0.0
    #: Id and configuration of the update codec, and what becomes of batch norm's statistics: "average" or "local".
    update_codec: str = "fedavg"
    update_config: Dict[str, Any] = {}  # noqa: RUF012
    norms: str = "average"
    #: Id and configuration of the codec of the way down; "": the update codec.
    down_codec: str = ""
    down_config: Dict[str, Any] = {}  # noqa: RUF012
    #: Modules whose weights every round carries, the others only rounds that a test follows; none: all are carried.
    update_layers: List[str] = []  # noqa: RUF012
    #: Whether the device sits the next round out: it trains nothing until then.
    resting: bool = False
    #: How much the device's local loss counts, see `edgekit.runtime.local_loss`; 0: there is none.
    local_loss: float = 0.0
    #: What the device shows when it comes back over another line; empty where it may not.
    token: str = ""
    #: See `edgekit.line.messages.Gradient.save`.
    save: int = 0


class Bye(NamedTuple):
    """device -> server: the session is over. Answered by Ack."""

    session: int
    #: Whether the device gives up before its end: nobody is to wait until it comes back.
    gives_up: bool = False


class Resume(NamedTuple):
    """device -> server: the first message of a new line, for a session whose line broke. Answered by Resumed."""

    session: int
    #: Answers that the device has got in this session, after Welcome, or since it last went back to a save.
    step: int
    #: `Welcome.token`.
    token: str
    #: `Resumed.life` of the last time that the device went back to a save, 0 where it never did; `NO_LIFE` of a device
    #: that was started anew and has nothing but its saves.
    life: int = 0


class Resumed(NamedTuple):
    """server -> device: the session goes on here. The answers that were lost follow."""

    session: int
    #: Messages that were answered in this session, after Hello. What the device sent after them it sends again.
    step: int
    #: Where the device goes back to its save of this label: both sides count from 0 then, in a new life. `NOT_BACK`:
    #: nowhere.
    back: int = -1
    life: int = 0
    #: Whether the session is over, the device having said bye; for one that was started anew.
    over: bool = False


#: See `Resume.life` and `Resumed.back`.
NO_LIFE = NOT_BACK = -1


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
