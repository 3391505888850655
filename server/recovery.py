"""Recovery: a run goes back to its latest checkpoint, and its devices with it.

::

    the server was started anew  --go_on-------> the checkpoint's sessions, all away; who comes is told to go back
    a device was started anew    --go_back_for-> what waits is given up, all lines are deaf, then the same
"""

import hmac
import time
from threading import Condition

from edgekit.errors import Refused, UsageError
from edgekit.line.messages import Resume
from edgekit.server.lines import Lines
from edgekit.server.run import Run
from edgekit.server.turns import Turns


class Recovery:
    """The going back of one service, whose run, lines, turns and lock these are."""

    def __init__(self, run: Run, lines: Lines, turns: Turns, lock: Condition) -> None:
        self._run, self._lines, self._turns, self._lock = run, lines, turns, lock
        #: Whether all wait until the run has gone back.
        self._going_back = False

    def wait(self) -> None:
        """Returns when the run is not going back; with the lock held, which is let go of meanwhile."""
        self._lock.wait_for(lambda: not self._going_back)

    def go_on(self) -> None:
        """Goes on from the latest checkpoint, if there is one, before anybody has connected. UsageError where it does
        not parse.
        """
        checkpoints = self._run.checkpoints
        if checkpoints is None or not checkpoints.label:
            return
        state = checkpoints.read()
        with self._lock:
            try:
                self._run.go_back(state)
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                told = (
                    f"checkpoint {checkpoints.label} fits another version of edgekit or another bundle: {error!r:.200}"
                )
                raise UsageError(told) from error

    def drain(self, seconds: float) -> None:
        """Waits until the devices present have saved once more, or are gone; for `seconds` at most."""
        checkpoints, until = self._run.checkpoints, time.monotonic() + seconds
        if checkpoints is None:
            return
        with self._lock:
            label = checkpoints.label
            self._run.begin_checkpoint()
            while checkpoints.label == label and checkpoints.open and time.monotonic() < until:
                if all(self._lines.is_away(number) for number in self._run.fleet.sessions):
                    return
                self._lock.wait(0.1)

    def go_back_for(self, request: Resume) -> None:
        """For a device that was started anew, in training: the run goes back to the latest checkpoint, if it is not
        there already. Refused where that does not have the device's session.
        """
        checkpoints = self._run.checkpoints
        with self._lock:
            self._lock.wait_for(lambda: not self._going_back)
            if self._lines.untouched(request.session):
                return
            if self._run.fleet.sessions and request.session not in self._run.fleet.sessions:
                # The others went on without it.
                return
            if checkpoints is None or not checkpoints.label:
                raise Refused("this run has no checkpoint to go back to: begin anew")
            state = checkpoints.read()
            tokens = {each["number"]: each["token"] for each in state["sessions"]}
            token = tokens.get(request.session)
            if not token or not hmac.compare_digest(token.encode(), request.token.encode()):
                # Whether it is of another session, or of one that came later: `Lines` says so.
                return
            # What waits gives up, and devices find that their lines broke.
            self._going_back = True
            self._lines.give_up()
            self._lock.notify_all()
            present = list(self._run.fleet.sessions)
        try:
            for number in present:
                self._turns.wait(number)
            with self._lock:
                self._run.go_back(state)
        finally:
            with self._lock:
                self._going_back = False
                self._lock.notify_all()
