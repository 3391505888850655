"""Events: what a server tells of a run. docs/record.md says what each field means."""

import secrets
import time
from datetime import datetime, timezone
from typing import Any

from edgekit.server.fleet import Fleet
from edgekit.server.rounds import Rounds
from edgekit.server.session import Session
from edgekit.server.tally import Count

Event = dict[str, Any]


def new_run() -> str:
    """A random id, by which the lines of one run are told from those of others."""
    return secrets.token_hex(4)


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 writes that time, in UTC and to the millisecond: 2026-01-31T23:59:59.125Z."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stamped(event: Event, run: str) -> Event:
    """`event` as a line of a log has it: with the time, now, and the id of its run."""
    return {"time": utc(time.time()), "run": run, **event}


def joined(session: Session) -> Event:
    return {"event": "joined", "session": session.number, "device": session.device, "steps": session.hello.steps}


def left(session: Session, finished: bool) -> Event:
    """`finished`: whether it said bye."""
    return {
        "event": "left", "session": session.number, "device": session.device, "steps": session.step,
        "finished": finished,
    }  # fmt: skip


def away(session: Session, seconds: float) -> Event:
    """Its line broke; it has so many seconds to come back."""
    return {
        "event": "away", "session": session.number, "device": session.device, "step": session.step, "seconds": seconds,
    }  # fmt: skip


def back(session: Session, lost: int) -> Event:
    """It came back over another line; so many answers had been lost."""
    return {
        "event": "back", "session": session.number, "device": session.device, "step": session.step, "lost": lost,
    }  # fmt: skip


def warned(session: Session, warning: str) -> Event:
    return {"event": "warned", "device": session.device, "step": session.step, "warning": warning}


def quarantined(session: Session, reason: str) -> Event:
    return {"event": "quarantined", "device": session.device, "step": session.step, "reason": reason}


def checkpoint(label: int, fleet: Fleet, whole: bool) -> Event:
    """The server and all devices present have saved as `label`; 0: one had not, and the one before holds."""
    return {
        "event": "checkpoint", "label": label, "steps": fleet.steps, "devices": len(fleet.sessions), "whole": whole,
    }  # fmt: skip


def went_back(label: int, fleet: Fleet) -> Event:
    """The run goes on from checkpoint `label`, for which its devices are waited for."""
    return {"event": "went_back", "label": label, "steps": fleet.steps, "devices": len(fleet.sessions)}


def not_kept(reason: str) -> Event:
    return {"event": "not_kept", "reason": reason}


def tested(epoch: int, devices: int, test: Count, validation: Count, best: bool) -> Event:
    """What the test of so many devices came to."""
    event = {
        "event": "tested", "epoch": epoch, "devices": devices, "images": test.images, "accuracy": test.accuracy,
        "test_loss": test.mean_loss, "best": best,
    }  # fmt: skip
    if validation.images:
        event.update(validation_accuracy=validation.accuracy, validation_loss=validation.mean_loss)
    return event


def ended(fleet: Fleet, rounds: Rounds, all_known: bool) -> Event:
    """What the run came to, and whether the same seed gives the same weights again.

    It does where every step and round waited for all its devices, of which were `all_known`, and rounds did not go by
    the clock.
    """
    every = rounds.policy.every
    waited = all_known and not fleet.short_steps and not fleet.late_updates
    return {
        "event": "ended", "steps": fleet.steps, "steps_without_some": fleet.short_steps,
        "rounds": rounds.number if every else 0, "late_updates": fleet.late_updates,
        "repeatable": waited and not every.seconds and not fleet.lost,
    }  # fmt: skip
