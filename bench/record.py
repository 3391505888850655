"""A bench's result, written and shown."""

import json
import sys
from typing import Any


def finish(record: dict[str, Any], path: str | None) -> None:
    """Writes `record` as JSON to the file `path`, if there is one, and to standard output."""
    text = json.dumps(record, indent=1)
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    sys.stdout.write(text + "\n")
