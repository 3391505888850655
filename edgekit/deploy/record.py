"""The record of a deployment: TARGET/NAME.json on the board. What cannot be read counts as none, and is said."""

import json
from typing import Any

from edgekit.deploy.deployment import Deployment


def load(d: Deployment) -> dict[str, Any]:
    """What earlier deployments of this name have left, {} without any."""
    (text,) = d.ask("files", do="read", paths=[f"{d.base}.json"]).get("texts", list) or [None]
    if text is None:
        return {}
    record = parse(text)
    if record is None:
        d.warn(f"{d.base}.json on the board does not parse: every step is done again")
    return record or {}


def parse(text: Any) -> dict[str, Any] | None:
    """The record in a text, None where there is none."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
