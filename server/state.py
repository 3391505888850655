"""The state of a run: all that a server knows and goes on from, as a tree for `edgekit.statefile`."""

from typing import Any

from edgekit.server.fleet import Fleet
from edgekit.server.rounds import Rounds
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.watch import Watch


def state_of(setup: Setup, fleet: Fleet, rounds: Rounds, watch: Watch | None) -> dict[str, Any]:
    """The state of the fleet and its sessions, the rounds, the back half, and the watch."""
    return {
        "fleet": fleet.state(),
        "sessions": [session.state() for session in fleet.in_order()],
        "rounds": rounds.state(),
        "back": setup.back.state(),
        "watch": watch.state() if watch is not None else None,
    }


def restore(state: dict[str, Any], setup: Setup, fleet: Fleet, rounds: Rounds, watch: Watch | None) -> list[Session]:
    """All of them go on from `state`; the sessions."""
    sessions = [Session.restored(each, setup) for each in state["sessions"]]
    fleet.restore(state["fleet"], sessions)
    rounds.restore(state["rounds"])
    setup.back.restore(state["back"])
    if watch is not None:
        watch.restore(state["watch"])
    return sessions
