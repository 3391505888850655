"""Pages: what `--metrics` serves of a status."""

import json
from collections.abc import Callable

from edgekit.server.observe.metrics import Metrics
from edgekit.server.observe.status import Status
from edgekit.server.observe.web import Page, Pages

JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"


def pages(look: Callable[[], Status]) -> Pages:
    """By path, the pages of what `look` gives."""
    metrics = Metrics(look)

    def health() -> Page:
        """Whether devices are served: code 200, or 503 while the server is about to end."""
        stopping = look()["stopping"]
        return Page(503 if stopping else 200, JSON, _json({"health": "stopping" if stopping else "serving"}))

    return {
        "/metrics": lambda: Page(200, TEXT, metrics.text()),
        "/status": lambda: Page(200, JSON, _json(look())),
        "/health": health,
    }


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"
