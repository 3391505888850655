"""Session: all that the server knows of one device. It holds no lock, socket or thread: a copy goes on as it would."""

import zlib
from dataclasses import dataclass, field
from typing import Any

from edgekit.codecs.base import Arrays, FeatureStream
from edgekit.line.messages import Hello, Tally
from edgekit.server.bound import Fineness
from edgekit.server.setup import Setup
from edgekit.server.tally import Count

#: What a state has of a session as it is.
_PLAIN = (
    "number", "tables", "tables_version", "step", "others", "left", "later", "round", "resting", "token", "warning",
)  # fmt: skip


@dataclass
class Session:
    """One device in training."""

    number: int
    #: What the device said of itself: its name, its images, its plan.
    hello: Hello
    #: The device's codec tables, and their version.
    tables: Arrays
    #: This end of the line's entropy coder.
    stream: FeatureStream
    tables_version: int = 0
    #: The next step; and the steps that the slowest of the others had made when it joined.
    step: int = 0
    others: int = 0
    #: Images that the device still plans to train on; and those of them that come after the next round.
    left: int = 0
    later: int = 0
    #: The number of the round whose weights the device has.
    round: int = 0
    #: Whether it sits the present round out.
    resting: bool = False
    #: How finely its gradients are sent, where a bound is kept.
    fineness: Fineness = field(default_factory=Fineness)
    #: What its device shows when it comes back over another line; empty where it may not.
    token: str = ""
    #: What it was last warned of.
    warning: str = ""
    #: What was taken in of its next message, before that has its turn (`edgekit.server.steps`).
    ahead: Any = None
    #: Whether its device talks to this process; else to another rank (`edgekit.server.ranks`), or it has left this one
    #: and the others do not know it yet.
    here: bool = True
    #: What its test came to so far.
    test: Count = field(default_factory=Count)
    validation: Count = field(default_factory=Count)
    #: What the others' test came to, where it ended without this device.
    missed: Tally | None = None

    @classmethod
    def begin(cls, number: int, hello: Hello, setup: Setup, here: bool = True) -> "Session":
        """A session that has seen nothing."""
        tables = {name: array.copy() for name, array in setup.tables.items()}
        return cls(number, hello, tables, setup.codec.stream(), left=hello.images * hello.epochs, here=here)

    def state(self) -> dict[str, Any]:
        """All of it, as a state (`edgekit.statefile`). None of its messages may be under way."""
        own = {name: getattr(self, name) for name in _PLAIN}
        return {
            **own, "hello": self.hello._asdict(), "stream": self.stream.state(), "fineness": self.fineness.state(),
            "test": vars(self.test), "validation": vars(self.validation),
            "missed": self.missed and list(self.missed),
        }  # fmt: skip

    @classmethod
    def restored(cls, state: dict[str, Any], setup: Setup) -> "Session":
        """The session that gave `state`."""
        session = cls.begin(state["number"], Hello(**state["hello"]), setup)
        for name in _PLAIN:
            setattr(session, name, state[name])
        session.stream.restore(state["stream"])
        session.fineness.restore(state["fineness"])
        session.test, session.validation = Count(**state["test"]), Count(**state["validation"])
        session.missed = Tally(*state["missed"]) if state["missed"] else None
        return session

    @property
    def device(self) -> str:
        """The device's name."""
        return self.hello.device

    @property
    def seed(self) -> int:
        """What its random draws follow from: its name, as its number depends on who came first."""
        return zlib.crc32(self.hello.device.encode())
