"""Answers update messages: a round is closed, and every device gets what brings it to the new weights."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgekit.codecs.base import Arrays
from edgekit.line.messages import Update, Weights
from edgekit.server.fleet import Fleet
from edgekit.server.rounds import Rounds
from edgekit.server.session import Session


class Closed(NamedTuple):
    """What became of a round: a reply for each session, by its number, and the "round" event."""

    replies: dict[int, Weights]
    told: dict[str, Any]


def close_round(
    fleet: Fleet,
    rounds: Rounds,
    entries: Sequence[tuple[Session, Update, Arrays | None]],
    rest: Callable[[], None],
) -> Closed:
    """Closes a round with `entries`, what each session sent and what `Rounds.take` made of it.

    `rest` draws who sits the next round out.
    """
    number, late = rounds.number, fleet.late_updates
    payload = rounds.close(fleet, entries)
    behind = {session.number for session, _, _ in entries if session.round != number}
    for session, update, _ in entries:
        session.left, session.round = update.left, rounds.number
    rest()
    replies = {}
    for session, _, _ in entries:
        whole = session.number in behind and bool(rounds.policy.every)
        weights = rounds.whole() if whole else payload
        tables = rounds.follow(session)
        replies[session.number] = Weights(
            session.number, rounds.number, weights, tables, whole, session.resting
        )  # fmt: skip
    told = {
        "event": "round", "round": number, "devices": len(entries),
        "images": sum(update.images for _, update, _ in entries),
        "bytes": len(payload), "late": fleet.late_updates - late,
    }  # fmt: skip
    return Closed(replies, told)
