"""What the folder of `edgekit train --out` holds of an earlier training, which is never overwritten unasked."""

import os

from edgekit.errors import UsageError
from edgekit.kept import check_room, halves

#: What is in the folder, beside one for the server's halves and one for each device's.
BUNDLE, RECORD = "bundle", "record.jsonl"
#: So many files are named in an error.
SHOWN = 5


def earlier(folder: str) -> list[str]:
    """What `folder` holds of an earlier training, as paths in it: halves, and a record that has an epoch."""
    there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    folders = [name for name in there if name == "server" or name.startswith("device-")]
    found = [os.path.join(name, half) for name in folders for half in halves(os.path.join(folder, name))]
    record = os.path.join(folder, RECORD)
    if os.path.isfile(record):
        with open(record, encoding="utf-8", errors="replace") as file:
            found += [RECORD] * any('"event": "epoch"' in line for line in file)
    return found


def check_out(folder: str, overwrite: bool) -> None:
    """UsageError where `folder` holds an earlier training, unless `overwrite`, and where it cannot be written to."""
    found = earlier(folder)
    if found and not overwrite:
        named = ", ".join(found[:SHOWN]) + ", ..." * (len(found) > SHOWN)
        raise UsageError(
            f"--out {folder}: it holds an earlier training ({named}): choose another folder, or --overwrite to lose it"
        )
    check_room(folder, 0)


def make_way(folder: str, n_bytes: int) -> None:
    """Removes what `folder` holds of an earlier training; UsageError where halves of `n_bytes` in all do not fit."""
    check_room(folder, n_bytes)
    for name in earlier(folder):
        os.remove(os.path.join(folder, name))
