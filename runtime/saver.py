"""Saver: a device's saves, which it writes when the server asks, and from which it goes on.

::

    server: save as k --> the device's state --write--> k beside the save before --Saved--> server
    Ack k, when all have saved: the save before goes        Ack 0, when one could not: k goes
"""

import zlib
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from edgekit.errors import Refused, UsageError
from edgekit.line import messages
from edgekit.line.messages import Ack, Saved, Welcome
from edgekit.runtime.front import Front
from edgekit.runtime.transport import Transport
from edgekit.saves import Saves
from edgekit.statefile import State

#: What a save has besides the state that was asked for: of which run it is.
RUN = "run"


class Saver:
    """Writes states of one device to `saves`. `run` says which run they are of: plain values by name."""

    def __init__(self, saves: Saves, run: Dict[str, Any], tell: Callable[[Dict[str, Any]], None]) -> None:
        self._saves = saves
        self._run = run
        self._tell = tell
        #: Gives the state of the device, when nothing is in flight.
        self.state: Callable[[], State] = dict

    def save(self, transport: Transport, session: int, label: int) -> None:
        """Writes the device's state as `label`, says so to the server, and waits until all others have theirs."""
        done = self._write(label, self.state())
        transport.send(Saved(session, label, done))
        if transport.expect(Ack).step == label:
            self._saves.confirm(label)
        else:
            self._saves.drop(label)

    def latest(self) -> Optional[State]:
        """The state of the latest save; None where there is none. UsageError where it is of another run."""
        return self.read(self._saves.labels[-1]) if self._saves.labels else None

    def read(self, label: int) -> State:
        """The state of `label`. UsageError where it is not there, or of another run."""
        state = self._saves.read(label)
        _check_run(state, self._run)
        return state

    def go_back(self, label: int) -> State:
        """The state of `label`; later ones are of no run any more, and go."""
        state = self.read(label)
        for later in [each for each in self._saves.labels if each > label]:
            self._saves.drop(later)
        return state

    @property
    def settled(self) -> bool:
        """Whether the latest save is all that there is."""
        return len(self._saves.labels) == 1

    def end(self, done: Dict[str, Any], welcome: Welcome) -> None:
        """Keeps `done`, the last event, beside the save before until `confirm`: the goodbye is still to be said."""
        self._write((self._saves.labels or [0])[-1] + 1, {"done": done, "session": {"welcome": _plan(welcome)}})

    def confirm(self) -> None:
        """The latest save is all that there is to go on with."""
        if self._saves.labels:
            self._saves.confirm(self._saves.labels[-1])

    def forget(self) -> None:
        """Loses all saves."""
        self._saves.clear()

    def _write(self, label: int, state: State) -> bool:
        """Whether `state` could be written as `label`."""
        try:
            self._saves.write(label, dict(state, **{RUN: self._run}))
        except UsageError as error:
            self._tell({"event": "not_kept", "reason": str(error)})
            return False
        return True


def saver_of(options: Any, bundle: str, train: Any, tell: Callable[[Dict[str, Any]], None]) -> Saver:
    """The saver of a device of `options` and images `train` (`runtime.session`), whose bundle has the hash `bundle`."""
    saves = Saves(options.out)
    if not options.resume:
        saves.clear()
    run = _run_of(options, bundle)
    images = "{}, CRC-32 {:08x}".format(len(train.labels), _check(train.images, train.labels))
    return Saver(saves, dict(run, images=images), tell)


def _check(*arrays: np.ndarray) -> int:
    check = 0
    for array in arrays:
        check = zlib.crc32(array.tobytes(), check)
    return check & 0xFFFFFFFF


def finished(options: Any, bundle: str, surely: bool = True) -> Dict[str, Any]:
    """The "done" event of the run that `options.out` holds; {} where there is something to go on with.

    Not `surely`: also where the goodbye may not have reached the server. UsageError where it is another run's.
    """
    saves = Saves(options.out)
    if not saves.labels or (surely and len(saves.labels) > 1):
        return {}
    state = saves.read(saves.labels[-1])
    done: Dict[str, Any] = state.get("done", {})
    if done:
        _check_run(state, _run_of(options, bundle))
    return done


def _run_of(options: Any, bundle: str) -> Dict[str, Any]:
    """What tells a device's run from others, but for its images."""
    wanted = (
        "name", "epochs", "batch", "in_flight", "seed", "regroup_every", "evaluate_every", "augment", "codebook_decay",
        "codebook_tolerance",
    )  # fmt: skip
    return dict({name: getattr(options, name) for name in wanted}, bundle=bundle)


def _check_run(state: State, run: Dict[str, Any]) -> None:
    """UsageError where `state` is not of `run`."""
    for name, value in run.items():
        was = state.get(RUN, {}).get(name)
        if was != value:
            raise UsageError(
                "--resume: the run in --out had {} {}, now it is {}: go on as it was, or begin anew with "
                "--overwrite".format(name, was, value)
            )


def going_on(
    session: Any, state: State, tell: Callable[[Dict[str, Any]], None]
) -> Tuple[Optional[State], Dict[str, Any]]:
    """For a device that was started anew, whose latest save is `state`: the save to go on from, or the "done" event of
    a run that is over. Neither where the `session`'s server knows it no more: then it begins anew.
    """
    done: Dict[str, Any] = state.get("done", {})
    if done and session.saver.settled:
        return None, done
    welcome = welcome_of(state["session"])
    try:
        label = session.transport.go_on(welcome.session, welcome.token)
    except Refused as error:
        if done:
            session.saver.confirm()
            return None, done
        tell({"event": "anew", "reason": str(error)})
        session.saver.forget()
        return None, {}
    return session.saver.go_back(label), {}


def state_of(session: Any, front: Front) -> Dict[str, Any]:
    """All that a `runtime.session.Session` and its front half know, as a state. Nothing may be in flight."""
    return {
        "welcome": _plan(session.welcome),
        "weights": front.state,
        "tables": front.tables,
        "counts": {name: getattr(session, name) for name in COUNTS},
        "errors": session.errors.state(),
        "optimizer": session.optimizer.state,
        "stream": session.stream.state(),
        "codebooks": session.codebooks.state() if session.codebooks else None,
        "local": session.local.state(),
        "rounds": session.before_round or session.rounds.state(),
    }


#: Attributes of a session that are plain counts.
COUNTS = ("planned", "step", "images", "updates", "staleness", "since_round")


def _plan(welcome: Welcome) -> np.ndarray:
    return np.frombuffer(messages.encode(welcome._replace(front=b"", tables=b"")), np.uint8)


def welcome_of(state: Dict[str, Any]) -> Welcome:
    """The Welcome that the session of `state` began with."""
    welcome = messages.decode(state["welcome"].tobytes())
    assert isinstance(welcome, Welcome)
    return welcome


def restore(session: Any, front: Front, state: Dict[str, Any]) -> None:
    """`session`, which has begun with the same Welcome, and `front` go on from `state`."""
    front.set_state(state["weights"])
    front.set_tables(state["tables"])
    for name in COUNTS:
        setattr(session, name, state["counts"][name])
    session.errors.restore(state["errors"])
    session.optimizer.state = {
        name: tuple(each) if isinstance(each, list) else each for name, each in state["optimizer"].items()
    }
    session.stream = front.codec.stream()
    session.stream.restore(state["stream"])
    if session.codebooks:
        session.codebooks.restore(state["codebooks"])
    session.local.restore(state["local"])
    session.rounds.restore(state["rounds"])
