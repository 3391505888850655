"""JointRun: the run of a server of several processes, the ranks. Each serves its own devices; they train one model.

Every rank knows all devices: those that talk to it, and of the others what their messages said. So each of them has the
same fleet, rounds, watch and progress, and decides the same. Features and gradients stay where their device is.

::

    vote     of all ranks, again and again: is there something to do here, or nobody to wait for?
    news     of all ranks: what there is to do, who has left
    act      messages of one kind, of all ranks, in the order of the devices' names --> `Run.act`, at each rank. The
             kind: hello, if any rank has one; else, unless a rank waits for its devices, tested, feature or update

- **A rank votes** when its gate (`edgekit.server.gate`) has messages to answer together, or no device is there; else
  after a second, for nothing. A rank that does not vote at all is lost, and that is an error at all others.
- **A joint step** is on the batches of all ranks (`back.py`). Each passes its own through the back half, its loss
  weighted so that the sum over ranks is the mean over all images; gradients are added up, and every rank makes the same
  step. Batch norm and dropout are those of all images (`program.py`). A rank that has none takes part with nothing.
- **A round** is made of the updates themselves, not of sums: each rank has all of them, and averages them as one server
  does. They are small, and come once an epoch.
- Who says bye, or is lost, is of the others' fleet until the next news, so that all ranks count it out at one moment.
- Now and then the ranks compare a checksum of the weights, and always how far the run is: what differs ends the run.

All that is kept lies at rank 0, whose state is that of every rank but for its devices' lines and coders. A restart
would give each rank that state and these; so far a server of several ranks begins anew.
"""

import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import torch

from edgekit.codecs.base import Arrays
from edgekit.errors import EdgekitError, Refused
from edgekit.server.gate import NAP_S, Ticket
from edgekit.server.ranks.group import Group
from edgekit.server.ranks.news import pack, pack_tickets, unpack, unpack_tickets
from edgekit.server.run import Run
from edgekit.server.session import Session

#: Longest time from one vote to the next, in seconds.
VOTE_S = 1.0
#: The pause after a vote when nothing was to be done at any rank.
PAUSE_S = 0.05
#: Steps from one comparison of the weights to the next.
COMPARED = 50
#: Votes. Nobody waits for those that train when a device comes late.
NOTHING, SOMETHING, LATE = range(3)
#: Events of the whole fleet.
OF_ALL = ("round", "tested")
#: What is done first where ranks have different things to do.
ORDER = ("tested", "feature", "update")


class JointRun(Run):
    """As `Run`, as one of `group`. `start` starts the thread that does what is done together.

    `failed` is why it ended before its devices had.
    """

    def __init__(self, group: Group, *given: Any) -> None:
        super().__init__(*given)
        assert self._patience.devices is not None
        self._devices = self._patience.devices
        self._group = group
        self._gone: list[tuple[int, bool]] = []
        self._quiet = 0.0
        self._compared = -1
        self.gate.led = True
        self.failed: EdgekitError | None = None

    def start(self, on_over: Callable[[], None]) -> None:
        """Begins; `on_over` is called when all devices of the run have ended, or it failed."""

        def lead() -> None:
            try:
                while not (self._voted() and self._together()):
                    pass
            except EdgekitError as error:
                self._fail(error)
            except Exception as error:
                self._fail(EdgekitError(f"the server failed: {error!r}"))
                raise
            finally:
                on_over()

        threading.Thread(target=lead, name="ranks", daemon=True).start()

    def _fail(self, error: EdgekitError) -> None:
        self.failed = error
        with self._lock:
            self.gate.fail(error)

    def end(self, session: Session, finished: bool) -> None:
        """Ends `session`; the fleet counts it out at the next news."""
        session.here = False
        self._gone.append((session.number, finished))
        self._let_go(session, finished)

    def _voted(self) -> bool:
        """Whether the ranks do something now: all have something to do, or one has a device that comes late."""
        votes = self._group.gather(torch.tensor([self._vote()])).flatten().tolist()
        return LATE in votes or NOTHING not in votes

    def _vote(self) -> int:
        """What there is to do here; it waits for something, but not for long."""
        until = time.monotonic() + VOTE_S
        with self._lock:
            while time.monotonic() < until:
                now = time.monotonic()
                ready = self.gate.ready(now)
                if ready or (not self.fleet.here and now >= self._quiet):
                    return LATE if ready and ready[0].kind == "hello" else SOMETHING
                self._lock.wait(max(min(NAP_S, until - now), 0.001))
        return NOTHING

    def _together(self) -> bool:
        """Does what is to be done next; whether the run is over."""
        with self._lock:
            ready, hellos = self.gate.ready(time.monotonic()), self.gate.hellos()
            told = [unpack(data)[0] for data in self._group.exchange(pack(self._news(ready, hellos)))]
            self._check([each["far"] for each in told])
            for number, finished in (gone for each in told for gone in each["gone"]):
                super().end(self.fleet.sessions[number], finished)
            if self.fleet.ended >= self._devices:
                return True
            kind = self._agreed(told)
            if not kind:
                self._quiet = time.monotonic() + PAUSE_S
                return False
            own = hellos if kind == "hello" else [each for each in ready if each.kind == kind]
            tickets = self._joined(own)
            self.gate.complete = all(each["complete"] for each in told)
            self.gate.answer(tickets)
            if self._group.lost is not None:
                raise self._group.lost
        return False

    def _news(self, ready: list[Ticket], hellos: list[Ticket]) -> dict[str, Any]:
        gone, self._gone = self._gone, []
        waits = "devices" if self.fleet.here else "nobody"
        return {
            "kind": ready[0].kind if ready else waits,
            "complete": self.gate.complete or not self.fleet.here,
            "hellos": len(hellos),
            "gone": gone,
            "far": [self.fleet.steps, self.rounds.number, self.fleet.progress, self._checksum()],
        }

    def _agreed(self, told: list[dict[str, Any]]) -> str:
        """The kind of messages that are answered now; none where some rank waits for its devices."""
        hellos, kinds = sum(each["hellos"] for each in told), {each["kind"] for each in told}
        begun = self.fleet.steps_per_epoch is not None and not self.fleet.over
        enough = hellos + len(self.fleet.sessions) >= self._devices
        if hellos and (begun or enough or "hello" in kinds):
            return "hello"
        if "devices" in kinds:
            return ""
        return next((kind for kind in ORDER if kind in kinds), "")

    def _joined(self, own: list[Ticket]) -> list[Ticket]:
        """`own`, and copies of those of the other ranks, in the order of the devices' names."""
        tickets: list[Ticket] = []
        for rank, data in enumerate(self._group.exchange(pack_tickets(own))):
            mine = rank == self._group.place.rank
            tickets += own if mine else unpack_tickets(data, self._setup, self.fleet, self.rounds)
        return sorted(tickets, key=lambda each: each.session.device if each.session else each.request.device)

    def _welcome(self, tickets: list[Ticket]) -> None:
        names = {session.device for session in self.fleet.sessions.values()}
        welcome = []
        for ticket in tickets:
            if ticket.request.device in names:
                ticket.error = Refused(
                    f"a device named {ticket.request.device} is in training at another rank of this server: give this "
                    "one another --name"
                )
            else:
                names.add(ticket.request.device)
                welcome.append(ticket)
        if welcome:
            super()._welcome(welcome)

    @property
    def on_event(self) -> Callable[[dict[str, Any]], None]:
        """What is called with events; those of the whole fleet are told by rank 0."""
        return self._tell

    @on_event.setter
    def on_event(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._told = on_event

    def _tell(self, event: dict[str, Any]) -> None:
        if self._group.place.first or event["event"] not in OF_ALL:
            self._told(event)

    def _checksum(self) -> int:
        """A checksum of the weights, every so many steps."""
        if self.fleet.steps % COMPARED or self.fleet.steps == self._compared:
            return 0
        self._compared = self.fleet.steps
        return _checksum({**self._setup.back.state_dict(), **self.rounds.weights})

    def _check(self, far: list[Any]) -> None:
        """EdgekitError where the ranks are not equally far."""
        if any(each != far[0] for each in far):
            raise EdgekitError(
                f"the ranks differ in steps, rounds, progress or weights: {far}; give all machines the same "
                "versions of edgekit, torch and numpy and one kind of processor, and start all ranks again"
            )


def _checksum(weights: Arrays) -> int:
    found = 0
    for name in sorted(weights):
        found = zlib.crc32(weights[name].tobytes(), found)
    return found
