"""The record of a deployment: TARGET/NAME.json on the board. One that cannot be read counts as none, with a warning."""

import json
from typing import Any

from edgekit.deploy.deployment import Deployment


def load(d: Deployment) -> dict[str, Any]:
    """The record that the last deployment of this name left; {} without one."""
    (text,) = d.ask("files", do="read", paths=[f"{d.base}.json"]).get("texts", list) or [None]
    if text is None:
        return {}
    record = parse(text)
    if record is None:
        d.warn(f"{d.base}.json on the board does not parse: every step is done again")
    return record or {}


def parse(text: Any) -> dict[str, Any] | None:
    """The record in `text`; None when it holds none."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
