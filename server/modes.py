"""Modes: how the devices of a run are kept together, as the command line says it."""

import math
from typing import NamedTuple

from edgekit.codecs.registry import parse_update_codec
from edgekit.errors import UnknownName, UsageError
from edgekit.sampling import sampling
from edgekit.server.policy import Every, Patience, RoundPolicy, parse_every

#: "sync": each step on the batches of all devices present. "async": in the order of arrival, those that come within a
#: moment of each other as one step.
MODES = ("sync", "async")
#: Seconds that a step waits for devices that are not there yet, by mode; and the share of them that must be there then.
#: Of devices whose images are of few classes, one alone is no step to make: docs/decisions.md.
WAIT_S = {"sync": 60.0, "async": 0.02}
QUORUM = {"sync": 0.5, "async": 0.25}
TEST_S = 60.0
#: --sync-every where nothing is said and there is more than one device.
EVERY = "1epoch"


class FleetSettings(NamedTuple):
    """How devices are kept together. None: the default of the mode."""

    mode: str = "sync"
    #: A number of steps, "1epoch", "30s", 0 for never; None: `EVERY`, but never for one device.
    sync_every: str | None = None
    #: Update codec of the rounds, "quantised:step=0.25".
    update_codec: str = "quantised"
    #: That of the way down; None: the same.
    update_codec_down: str | None = None
    #: The layers that every round carries, "last:2" or names with commas between; None: all of them.
    update_layers: str | None = None
    #: "mean", "clipped" or "trimmed".
    average: str = "clipped"
    #: Batch norm's statistics of the front halves: "average" or "local".
    norm_statistics: str = "average"
    server_momentum: float = 0.0
    #: "all", "static:SHARE", "dynamic" or "dynamic:DECAY".
    sampling: str = "all"
    #: Seconds that a run waits for its devices, which themselves wait for 300 s (`edgekit run --timeout`); that a step
    #: and a round wait for devices that are not there yet. All wait as long as a round for a device that says nothing
    #: in its test, but `TEST_S` at least.
    start_wait: float = 240.0
    step_wait: float | None = None
    round_wait: float = 60.0
    #: Share of the devices without which a step or round waits longer.
    quorum: float | None = None
    #: Images of a joint step in sync mode, of all devices together; None: twice those of one device, or 4 of each
    #: device where that is more.
    joint_batch: int | None = None
    #: Most steps that a device may be ahead of the slowest; None: any number.
    ahead: int | None = None
    #: Seconds that a device whose line broke has to come back; 0: it may not.
    reconnect: float = 60.0

    def check(self) -> None:
        """UsageError or UnknownName for what makes no sense."""
        self.patience(None)
        self.rounds(None)

    def patience(self, devices: int | None) -> Patience:
        """For whom a server of `devices` devices waits, and how long; None: nobody knows how many."""
        if self.mode not in MODES:
            raise UnknownName("mode", self.mode, MODES, f"there are: {', '.join(MODES)}")
        if devices is not None and devices < 1:
            raise UsageError(f"--devices {devices}: expected at least 1")
        for name in ("start_wait", "step_wait", "round_wait", "ahead", "reconnect"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number of 0 or more")
        wait = WAIT_S[self.mode] if self.step_wait is None else self.step_wait
        step_quorum, round_quorum = QUORUM[self.mode], QUORUM["sync"]
        if self.quorum is not None:
            if not 0 <= self.quorum <= 1:
                raise UsageError(f"--quorum {self.quorum}: expected a share of the devices, 0 to 1")
            step_quorum = round_quorum = self.quorum
        return Patience(
            devices, self.start_wait, wait, step_quorum, self.round_wait, round_quorum,
            max(self.round_wait, TEST_S), self.mode == "sync", self.joint_batch, self.ahead,
            self.reconnect,
        )  # fmt: skip

    def rounds(self, devices: int | None) -> RoundPolicy:
        """How front halves are averaged on a server of `devices` devices."""
        every = parse_every(self.sync_every or EVERY)
        if devices == 1 and self.sync_every is None:
            every = Every()
        codec = parse_update_codec(self.update_codec)
        down = None if self.update_codec_down is None else parse_update_codec(self.update_codec_down)
        policy = RoundPolicy(
            every, codec, self.average, self.norm_statistics, self.server_momentum, sampling(self.sampling),
            self.update_layers, down,
        )  # fmt: skip
        policy.check()
        return policy
