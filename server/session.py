"""Session: all that the server knows of one device. It holds no lock, socket or thread: a copy goes on as it would."""

from collections import OrderedDict
from dataclasses import dataclass, field

from edgekit.codecs.base import Arrays, FeatureStream
from edgekit.line.messages import Gradient
from edgekit.server.setup import Setup

#: Replies kept per session, for messages that come again.
RECORD = 16


@dataclass
class Session:
    """One device in training."""

    number: int
    device: str
    #: Training batches that the device planned at hello.
    steps: int
    #: The device's codec tables, and their version.
    tables: Arrays
    #: This end of the line's entropy coder.
    stream: FeatureStream
    tables_version: int = 0
    #: The next step.
    step: int = 0
    #: Its latest replies, by step.
    replies: "OrderedDict[int, Gradient]" = field(default_factory=OrderedDict)

    @classmethod
    def begin(cls, number: int, device: str, steps: int, setup: Setup) -> "Session":
        """A session that has seen nothing."""
        tables = {name: array.copy() for name, array in setup.tables.items()}
        return cls(number, device, steps, tables, setup.codec.stream())

    def keep(self, reply: Gradient) -> None:
        """Ends the step that `reply` answers."""
        self.step += 1
        self.replies[reply.step] = reply
        if len(self.replies) > RECORD:
            self.replies.popitem(last=False)
