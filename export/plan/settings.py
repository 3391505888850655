"""What a plan is told: the step that is predicted, the cuts that are compared, where the times come from."""

from collections.abc import Sequence
from typing import NamedTuple

from edgekit.codecs.base import FeatureCodec


class PlannedStep(NamedTuple):
    """The step that is predicted: `devices` boards train behind one link, with a feature codec."""

    #: Name of the board's profile, or path of one (.toml).
    device: str
    #: The line to the server, "10mbit+20ms".
    link: str
    codec: FeatureCodec
    #: Boards that take turns at the server.
    devices: int = 1
    #: Images of a step.
    batch: int = 32


class Compared(NamedTuple):
    """The cuts that are compared: `layers`, else `everything`, else the good ones."""

    layers: Sequence[str] = ()
    everything: bool = False


class Timing(NamedTuple):
    """Where the two halves' times come from."""

    #: The device's half is timed on this host; False: it is predicted from the board's peak figures.
    measure: bool = False
    #: What the server's half is timed on: "cpu", "cuda" or "auto", and with how many threads.
    torch_device: str = "cpu"
    threads: int = 1
