"""Answers update messages: a round is closed, and every device gets what brings it to the new weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from edgekit.carried import NO_REST
from edgekit.codecs.base import Arrays
from edgekit.line.messages import Update, Weights
from edgekit.server.fleet import Fleet
from edgekit.server.rounds import NONE, Rounds
from edgekit.server.session import Session


class Closed(NamedTuple):
    """What became of a round: replies by the session's number, and the "round" event. Who has no reply waits on."""

    replies: dict[int, Weights]
    told: dict[str, Any]


def close_round(fleet: Fleet, rounds: Rounds, entries: Sequence[tuple[Session, Update, Arrays | None]]) -> Closed:
    """Closes a round with `entries`, what each session sent and what `Rounds.take` made of it."""
    number, late = rounds.number, fleet.late_updates
    payload, rest = rounds.close(fleet, entries)
    behind = {session.number for session, _, _ in entries if session.round != number}
    waiting = _at_end(fleet, rounds, entries)
    for session, update, _ in entries:
        session.left, session.round = update.left, NONE if session.number in waiting else rounds.number
    rounds.rest(fleet)
    replies = {}
    for session in (session for session, _, _ in entries if session.number not in waiting):
        whole = session.number in behind and bool(rounds.policy.every)
        weights, last = (rounds.whole(), NO_REST) if whole else (payload, rest)
        tables = rounds.follow(session)
        replies[session.number] = Weights(
            session.number, rounds.number, weights, tables, whole, session.resting, last
        )  # fmt: skip
    told = {
        "event": "round", "round": number, "devices": len(entries),
        "images": sum(update.images for _, update, _ in entries),
        "bytes": len(payload), "late": fleet.late_updates - late,
    }  # fmt: skip
    return Closed(replies, told)


def _at_end(fleet: Fleet, rounds: Rounds, entries: Sequence[tuple[Session, Update, Arrays | None]]) -> set[int]:
    """Numbers of the sessions that came to their end while others train on; none where all did.

    That all may end with one network, these get the weights of the last round of all. Rounds by the clock find some
    devices a few steps before others. In other rounds all others have at most one round to go: the device came in after
    their last batch of an epoch and before their round, and so its rounds are one ahead. Who planned fewer epochs than
    that ends alone.
    """
    ended = {session.number for session, update, _ in entries if update.test and not update.left}
    others = [(session, update.left) for session, update, _ in entries if session.number not in ended]
    if not rounds.policy.every or not others:
        return set()
    per_epoch = rounds.per_epoch(fleet)
    nearly = all(left <= rounds.images(session, per_epoch) for session, left in others)
    return ended if rounds.policy.every.seconds or nearly else set()
