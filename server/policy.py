"""What a server is told of its devices: for whom it waits, and how it averages their front halves."""

from typing import NamedTuple

from edgekit.codecs.base import UpdateCodec
from edgekit.errors import UnknownName, UsageError
from edgekit.sampling import Sampling
from edgekit.server.averaging import check_average

#: Images that each device has in a joint step, in the mean, where there are many devices.
FEWEST = 4


class Patience(NamedTuple):
    """For whom the server waits, and how long; seconds count from the first device that waits."""

    #: Devices that a run begins with; None: it begins with the first.
    devices: int | None = None
    #: How long those are waited for.
    start_s: float = 240.0
    #: How long a step waits for the devices that are not there yet, and the share of the devices present without which
    #: it is not made then. With 0 and 0 a batch waits for none.
    step_s: float = 0.0
    step_quorum: float = 0.0
    #: The same for a round.
    round_s: float = 60.0
    round_quorum: float = 0.5
    #: How long a device that tests may say nothing.
    test_s: float = 60.0
    #: Whether all devices make the same number of steps an epoch, each step on a batch of every one of them, in
    #: proportion to its share; and the images of such a step. None: `Patience.joint_images` says.
    lockstep: bool = False
    joint_batch: int | None = None
    #: Most steps that a device may be ahead of the slowest; None: any number.
    ahead: int | None = None
    #: How long a device whose line broke has to come back; 0: it may not.
    away_s: float = 0.0

    def joint_images(self, devices: int, alone: int) -> int:
        """Images of a joint step of `devices`, where one alone takes `alone`.

        Twice as many: larger steps are fewer, and networks then came to less on new images (docs/decisions.md). Each
        device is to have `FEWEST` of them at least.
        """
        if self.joint_batch is not None:
            return self.joint_batch
        return alone if devices == 1 else max(2 * alone, FEWEST * devices)

    def check(self) -> None:
        """UsageError for what makes no sense."""
        for name, value in self._asdict().items():
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"{name} of {value}: expected 0 or more")
        for name in ("step_quorum", "round_quorum"):
            if getattr(self, name) > 1:
                raise UsageError(f"{name} of {getattr(self, name)}: expected a share of the devices, up to 1")


#: What becomes of the statistics of the front's batch norms.
NORMS = ("average", "local")


class Every(NamedTuple):
    """When there is a round: one after so many steps, epochs or seconds of a device; never where all are 0."""

    steps: int = 0
    epochs: int = 0
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return any(self)


class RoundPolicy(NamedTuple):
    """How front halves are averaged."""

    every: Every
    codec: UpdateCodec
    average: str = "clipped"
    norms: str = "average"
    #: Momentum of the server's step along the average (FedAvgM, Hsu et al. 2019); 0: the average is taken as it is.
    momentum: float = 0.0
    sampling: Sampling = Sampling()
    #: The layers that every round carries, see `edgekit.server.layers`; None: all of them.
    layers: str | None = None
    #: The codec of the way down; None: `codec`.
    down: UpdateCodec | None = None

    def check(self) -> None:
        """UsageError or UnknownName for what makes no sense."""
        check_average(self.average)
        if self.norms not in NORMS:
            raise UnknownName("policy of norms", self.norms, NORMS, f"there are: {', '.join(NORMS)}")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"--server-momentum {self.momentum}: expected 0 or more, and below 1")
        if self.sampling != Sampling() and not self.every:
            raise UsageError("--sampling: who rests is drawn at every round, and there is none: give --sync-every")
        if self.layers is not None:
            self._check_layers()

    def _check_layers(self) -> None:
        told = f"--update-layers {self.layers}: the other layers go with the rounds before tests"
        if not self.every:
            raise UsageError("--update-layers: there are no rounds: give --sync-every in steps or epochs")
        if self.every.seconds:
            raise UsageError(f"{told}, and by the clock devices do not test together: give --sync-every in steps")
        if self.sampling != Sampling():
            raise UsageError(f"{told}, and a device that rests then would lose its own: leave --sampling out")


def parse_every(text: str) -> Every:
    """What --sync-every says: a number of steps, "2epochs", "30s", or 0. UsageError.

    >>> parse_every("1epoch")
    Every(steps=0, epochs=1, seconds=0.0)
    """
    for unit, field in (("epochs", "epochs"), ("epoch", "epochs"), ("steps", "steps"), ("s", "seconds"), ("", "steps")):
        number = text[: -len(unit)] if unit else text
        if text.endswith(unit) and number.isdecimal():
            return Every(**{field: int(number)})
    raise UsageError(f"--sync-every {text}: expected a number of steps, or 1epoch, 2epochs, 30s, or 0 for never")


def parse_checkpoint(text: str) -> Every:
    """What --checkpoint says: "60s", "500steps", or "0" for never. UsageError.

    >>> parse_checkpoint("500steps")
    Every(steps=500, epochs=0, seconds=0.0)
    """
    told = f"--checkpoint {text}: expected seconds or steps, 60s or 500steps, or 0 for never"
    try:
        every = parse_every(text)
    except UsageError:
        raise UsageError(told) from None
    if every.epochs:
        raise UsageError(told)
    return every
