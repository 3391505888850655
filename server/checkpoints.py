"""Checkpoints: when the server and its devices save their states under one label, so that a run goes on from there.

::

    due --open--> each device is asked once, by the answer that it gets next --Saved--> gate.py, until all have saved
                  a device that says bye has nothing more to save               |
                                     the server's own state is written, the label closed --Ack--> devices

A checkpoint that a device could not save, or did not in time, is given up: the one before holds.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from edgekit.errors import Refused
from edgekit.saves import Saves
from edgekit.server.policy import Every
from edgekit.server.session import Session
from edgekit.statefile import State

#: Seconds from one checkpoint to the next, at least so many times what a checkpoint takes.
TIMES_AS_LONG = 20.0
#: How long devices that have saved wait for the others.
WAIT_S = 60.0


class Checkpoints:
    """The checkpoints of one run, in `saves`: one every so many steps or seconds, and when a device comes or goes.

    `settings` say which run it is, plain values by name.
    """

    def __init__(self, saves: Saves, every: Every, settings: dict[str, Any]) -> None:
        self.saves = saves
        self._every = every
        self._settings = settings
        #: Label of the latest one, 0 before the first; and of the one that is being made, 0 where none is.
        self.label = saves.labels[-1] if saves.labels else 0
        self.open = 0
        self._to_ask: set[int] = set()
        self._asked: set[int] = set()
        self._steps = 0
        self._since = time.monotonic()
        self._took_s = 0.0
        self._tried = self.label
        if not saves.labels:
            # Before the first one is made, what can be gone on with is the beginning.
            saves.write(0, {"label": 0, "settings": settings})

    def due(self, steps: int) -> bool:
        """Whether one is due after `steps` steps of the run."""
        every, seconds = self._every, max(self._every.seconds, TIMES_AS_LONG * self._took_s)
        by_steps = bool(every.steps) and steps >= self._steps + every.steps
        return not self.open and (by_steps or (bool(every.seconds) and time.monotonic() >= self._since + seconds))

    def begin(self, sessions: Iterable[Session]) -> None:
        """Opens one, or goes on with the open one: all of `sessions` that were not asked yet are to be."""
        if not self.open:
            self._tried += 1
            self.open = self._tried
            self._to_ask, self._asked = set(), set()
        self._to_ask |= {session.number for session in sessions} - self._asked

    def ask(self, session: Session) -> int:
        """The label that `session` is to save as: once, and 0 afterwards or where there is nothing to save."""
        if not self.open or session.number not in self._to_ask:
            return 0
        self._to_ask.remove(session.number)
        self._asked.add(session.number)
        return self.open

    def asks(self, session: Session | None) -> bool:
        """Whether `session` is still to be asked."""
        return bool(self.open) and session is not None and session.number in self._to_ask

    def close(self, whole: bool, steps: int, state: Callable[[], State]) -> int:
        """Closes the open one after `steps` steps; `whole`: all devices saved. Its label, 0 where it was given up.

        UsageError where the server's own state cannot be written.
        """
        label, self.open = self.open, 0
        self._steps, self._since = steps, time.monotonic()
        if not whole or not label:
            return 0
        self.saves.write(label, {**state(), "label": label, "settings": self._settings})
        self.saves.confirm(label)
        self.label, self._took_s = label, time.monotonic() - self._since
        return label

    def read(self) -> State:
        """The state of the latest one. UsageError where there is none."""
        return self.saves.read(self.label)

    def went_back(self, steps: int) -> None:
        """For a run that went back to the latest one, which had `steps` steps."""
        self.open, self._steps, self._since = 0, steps, time.monotonic()


def makes(checkpoints: Checkpoints | None, label: int) -> bool:
    """Whether the checkpoint `label` is being made. Refused where there are none."""
    if checkpoints is None:
        raise Refused("this server makes no checkpoints, and asked for no save")
    return label == checkpoints.open
