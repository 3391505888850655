"""A bench's record: how it begins, written and read."""

import importlib
import json
import platform
import sys
from typing import Any


def command() -> list[str]:
    """What made the record."""
    return ["python", *sys.argv]


def versions(*packages: str) -> dict[str, str]:
    """Those of Python and of `packages`."""
    found = {name: str(importlib.import_module(name).__version__) for name in packages}
    return {"python": platform.python_version(), **found}


def write(record: Any, path: str) -> None:
    """Writes `record` as JSON to the file `path`."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1) + "\n")


def finish(record: dict[str, Any], path: str | None) -> None:
    """Writes `record` as JSON to the file `path`, if there is one, and to standard output."""
    if path:
        write(record, path)
    sys.stdout.write(json.dumps(record, indent=1) + "\n")


def read(path: str) -> Any:
    """What the JSON file `path` holds."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
