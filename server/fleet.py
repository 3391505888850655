"""Fleet: which devices take part in a run, and how far the run is. It holds no lock, socket or thread."""

from collections.abc import Collection, Sequence
from typing import Any

from edgekit.errors import Quarantined, Refused
from edgekit.line.messages import Hello
from edgekit.server.policy import Patience
from edgekit.server.session import Session

#: What a state has of a fleet as it is.
_PLAIN = (
    "joined", "quarantined", "progress", "batch", "steps_per_epoch", "active", "steps", "short_steps", "late_updates",
)  # fmt: skip


class Fleet:
    """The devices of one server.

    `progress` goes from 0 to 1 while images are seen: what is left of it is spread over the images that the devices
    present still plan. So it comes to 1 whoever joins late or leaves early, and never goes back.
    """

    def __init__(self, devices: int | None = None) -> None:
        #: Devices that a run begins with; None: nobody knows how many.
        self._devices = devices
        self.sessions: dict[int, Session] = {}
        self.joined = 0
        #: Names of devices that said bye, and of those whose line broke.
        self.finished: set[str] = set()
        self.lost: set[str] = set()
        #: Name -> why no more is learned from it.
        self.quarantined: dict[str, str] = {}
        self.progress = 0.0
        #: Images that one device takes in a step by itself: the most of those that the run began with.
        self.batch = 1
        #: Steps of an epoch of every device; 0: each makes its own; None: the run has not begun.
        self.steps_per_epoch: int | None = None
        #: The share of the devices that do not rest; 1 where those that rest skip nothing.
        self.active = 1.0
        #: Joint steps of the back half; those that did not wait for all; rounds; updates that came too late for theirs.
        self.steps = 0
        self.short_steps = 0
        self.late_updates = 0

    @property
    def here(self) -> dict[int, Session]:
        """The sessions of devices that talk to this process: all of them, where a server is one process."""
        return {number: session for number, session in list(self.sessions.items()) if session.here}

    def own(self, number: int) -> Session | None:
        """Session `number`, where it is one of this process; no lock is needed."""
        session = self.sessions.get(number)
        return session if session is not None and session.here else None

    @property
    def ended(self) -> int:
        """Devices, by name, that will not come back: those that finished, and those in quarantine."""
        return len(self.finished | set(self.quarantined))

    @property
    def over(self) -> bool:
        """Whether all devices of the run have finished: the next one to come begins another."""
        return not self.sessions and bool(self.finished) and not self.lost and self.ended >= (self._devices or 1)

    def state(self) -> dict[str, Any]:
        """All of it but the sessions, as a state (`edgekit.statefile`)."""
        own = {name: getattr(self, name) for name in _PLAIN}
        return {**own, "finished": sorted(self.finished), "lost": sorted(self.lost)}

    def restore(self, state: dict[str, Any], sessions: Sequence[Session]) -> None:
        """Goes on from `state`, with `sessions`."""
        # A number is never given twice.
        joined = max(self.joined, state["joined"])
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.joined = joined
        self.finished, self.lost = set(state["finished"]), set(state["lost"])
        self.sessions.clear()
        self.sessions.update({session.number: session for session in sessions})

    def check(self, hello: Hello, away: Collection[Session] = ()) -> None:
        """Refused or Quarantined when the device may not join; the sessions in `away` are in nobody's way."""
        name = hello.device
        if name in self.quarantined:
            raise Quarantined(
                f"{name} is in quarantine: {self.quarantined[name]}; start the server anew to take it back"
            )
        for session in self.sessions.values():
            if session.device == name and session.here and session not in away:
                raise Refused(
                    f"a device named {name} is in training (session {session.number}): give this one another --name; "
                    "if that one has lost its line, its place is free within 90 s"
                )

    def join(self, session: Session) -> None:
        """Takes `session` in. When all devices before have finished, a new run begins with it.

        Where nobody knows how many devices there are, so it does when those that were there came to the end, unless
        `session` is of one that had lost its line: that gets the network that it missed.
        """
        at_end = not self.sessions and self.epochs_done(1) == 1
        if self.over or (self._devices is None and at_end and session.device not in self.lost):
            self.progress, self.steps_per_epoch = 0.0, None
            self.finished.clear()
            self.lost.clear()
        session.others = min((each.others + each.step for each in self.sessions.values()), default=0)
        self.sessions[session.number] = session
        self.lost.discard(session.device)
        # The run's epochs are the device's: it does those that are still to come.
        session.left = session.hello.images * (session.hello.epochs - self.epochs_done(session.hello.epochs))

    def begin(self, patience: Patience) -> None:
        """Plans a run with the devices present: the images and the number of its steps."""
        hellos = [session.hello for session in self.sessions.values()]
        self.batch = max(1, *(-(-hello.images // max(hello.steps, 1)) for hello in hellos))
        self.steps_per_epoch = 0
        if patience.lockstep:
            joint = patience.joint_images(len(hellos), self.batch)
            images = sum(hello.images for hello in hellos)
            self.steps_per_epoch = max(-(-images // joint), *(hello.steps for hello in hellos))

    def steps_of(self, session: Session) -> int:
        """Steps of an epoch of `session`'s device: no fewer than it can take its images in."""
        return max(self.steps_per_epoch or 0, session.hello.steps)

    def epochs_done(self, epochs: int) -> int:
        """How many of `epochs` the run has done."""
        return int(self.progress * epochs + 1e-6)

    def leave(self, session: Session, finished: bool) -> None:
        """Ends `session`; one that has not `finished` lost its line."""
        del self.sessions[session.number]
        if session.device not in self.quarantined:
            (self.finished if finished else self.lost).add(session.device)

    def advance(self, seen: dict[int, int]) -> tuple[float, float]:
        """The progress before and after a step on ``seen[session]`` images of each session."""
        before = self.progress
        left = sum(self._to_come(session, seen.get(number, 0)) for number, session in self.sessions.items())
        for number, images in seen.items():
            self.sessions[number].left = max(self.sessions[number].left - images, 0)
        total = sum(seen.values())
        self.progress = min(before + (1.0 - before) * total / max(left, total, 1), 1.0)
        return before, self.progress

    def _to_come(self, session: Session, seen: int) -> float:
        """Images that `session`, of which `seen` are here, may be expected to see: it rests now, or might later."""
        later = min(session.later, session.left)
        if session.resting and self.active < 1.0:
            return seen + self.active * later
        now = max(session.left - later, seen)
        return now + self.active * max(session.left - now, 0)

    def in_order(self) -> list[Session]:
        """The sessions, in the order of their devices' names."""
        return sorted(self.sessions.values(), key=lambda session: session.device)
