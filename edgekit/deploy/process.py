"""What on_board/process.py tells of a device process, in words; and how one is ended."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from edgekit.deploy.answer import Answer

#: Seconds that a process has to end once it is asked to.
GRACE_S = 20.0


def stop(ask: Callable[..., Answer]) -> str:
    """How the process ended that was asked to; `ask(do=...)` asks the board about it."""
    how = ask(do="stop", grace_s=GRACE_S).get("how", str)
    if how == "killed":
        return f"it did not end within {GRACE_S:.0f} s and was killed"
    state, until = ask(do="state"), time.monotonic() + 2
    while how == "ended" and state.maybe("exit", int) is None and time.monotonic() < until:
        state = ask(do="state")
    return f"{'it was not running' if how == 'none' else 'it was asked to end'}: {ended(state)}"


def ended(state: Answer) -> str:
    """How a process that does not run has ended."""
    if state.maybe("for_s", float) is None:
        return "not started yet"
    code = state.maybe("exit", int)
    if code is None:
        return "it has ended without an exit code (killed, or the board was switched off)"
    meaning = {0: "done", 130: "stopped on request"}.get(code, "an error")
    return f"it has ended with exit code {code} ({meaning})"


def since(state: Answer) -> str:
    """How long it has run."""
    seconds = state.maybe("for_s", float) or 0.0
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def said(state: Answer) -> str:
    """How far it has come, as its last events tell; empty before it is connected."""
    found = latest(state)
    last = found.get("done") or found.get("epoch")
    if last is not None:
        accuracy = last.get("accuracy")
        tested = f", test accuracy {accuracy:.2f} %" if isinstance(accuracy, float) else ""
        return f"epoch {last.get('epoch')} of {last.get('epochs')}{tested}"
    first = found.get("progress") or found.get("connected")
    return "" if first is None else f"step {first.get('step')} of {first.get('steps')}"


def restarting(state: Answer) -> str:
    """That it has ended and is started again, where that was the last that came of it; empty elsewhere."""
    last = latest(state).get("restarts")
    if last is None:
        return ""
    return f"it ended with exit code {last.get('code')}, and is started again {last.get('wait_s')} s later"


def last_words(state: Answer) -> str:
    """The end of the log that is no event."""
    lines = (state.maybe("log", str) or "").strip().splitlines()
    return "\n".join(line for line in lines[-15:] if not events([line])) or "\n".join(lines[-3:]) or "nothing"


def latest(state: Answer) -> dict[str, dict[str, Any]]:
    """The last event of each kind in the log since the process was last started anew, the newest at the end."""
    found: dict[str, dict[str, Any]] = {}
    for event in events((state.maybe("log", str) or "").splitlines()):
        if event["event"] == "restarts":
            found.clear()
        found.pop(event["event"], None)
        found[event["event"]] = event
    return found


def events(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The events among lines of a device process; other lines are left out."""
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("event"), str):
            found.append(value)
    return found
