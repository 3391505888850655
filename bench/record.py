"""A bench's record: how it begins, written and read."""

import importlib
import json
import os
import platform
import sys
from typing import Any


def head(*packages: str) -> dict[str, Any]:
    """What made the record: the command, and where `packages` are given, their versions and that of Python."""
    made: dict[str, Any] = {"command": ["python", *sys.argv]}
    if packages:
        found = {name: str(importlib.import_module(name).__version__) for name in packages}
        made["versions"] = {"python": platform.python_version(), **found}
    return made


def write(record: Any, path: str) -> None:
    """Writes `record` as JSON to the file `path`, which is whole at any time."""
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1) + "\n")
    os.replace(f"{path}.part", path)


def finish(record: dict[str, Any], path: str | None) -> None:
    """Writes `record` as JSON to the file `path`, if there is one, and to standard output."""
    if path:
        write(record, path)
    sys.stdout.write(json.dumps(record, indent=1) + "\n")


def read(path: str) -> Any:
    """What the JSON file `path` holds."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
