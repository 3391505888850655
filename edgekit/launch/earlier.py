"""What the folder of `edgekit train --out` holds of an earlier training, which is never overwritten unasked."""

import json
import os

from edgekit.errors import UsageError
from edgekit.kept import check_room, halves
from edgekit.saves import paths

#: What is in the folder, beside one for the server's halves and one for each device's.
BUNDLE, RECORD = "bundle", "record.jsonl"
#: So many files are named in an error.
SHOWN = 5


def earlier(folder: str) -> list[str]:
    """What `folder` holds of an earlier training, as paths in it: halves, saves, and a record that has an epoch."""
    there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    folders = [name for name in there if name == "server" or name.startswith("device-")]
    found = [os.path.join(name, half) for name in folders for half in halves(os.path.join(folder, name))]
    found += [os.path.join(name, path) for name in folders for path in paths(os.path.join(folder, name))]
    record = os.path.join(folder, RECORD)
    if os.path.isfile(record):
        with open(record, encoding="utf-8", errors="replace") as file:
            found += [RECORD] * any('"event": "epoch"' in line for line in file)
    return found


def command_of(folder: str) -> list[str]:
    """The words behind ``edgekit train`` with which the training that `folder` holds was called. UsageError."""
    path = os.path.join(folder, RECORD)
    try:
        with open(path, encoding="utf-8") as file:
            words = json.loads(file.readline())["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} does not say how a training was called: {error!r:.100}") from None
    if not (isinstance(words, list) and words[:1] == ["train"] and all(isinstance(word, str) for word in words)):
        raise UsageError(f"{path}: `edgekit train` did not make this: `edgekit.launch.train` goes on with it")
    return words[1:]


def mend(folder: str) -> None:
    """Takes a last line that is not whole from the record in `folder`: whoever wrote it was killed."""
    path = os.path.join(folder, RECORD)
    if os.path.exists(path):
        with open(path, "rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def check_out(folder: str, overwrite: bool) -> None:
    """UsageError where `folder` holds an earlier training, unless `overwrite`, and where it cannot be written to."""
    found = earlier(folder)
    if found and not overwrite:
        named = ", ".join(found[:SHOWN]) + ", ..." * (len(found) > SHOWN)
        raise UsageError(
            f"--out {folder}: it holds an earlier training ({named}): choose another folder, --overwrite to lose "
            f"it, or `edgekit train --resume {folder}` to go on with it"
        )
    check_room(folder, 0)


def make_way(folder: str, n_bytes: int) -> None:
    """Removes what `folder` holds of an earlier training; UsageError where halves of `n_bytes` in all do not fit."""
    check_room(folder, n_bytes)
    for name in earlier(folder):
        os.remove(os.path.join(folder, name))
