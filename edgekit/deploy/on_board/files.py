"""Files on a board. This script's text is sent there and run by the board's Python (3.6 or newer), without libraries.

Argument: JSON with "do": "look" (which files are whole, which are there in part), "take" (the rest of one, from
standard input), "write" (short texts) or "read". A file that is not whole yet is FILE.part.
"""

import hashlib
import json
import os
import sys
from typing import Any, Dict, List, Optional


def digest(path: str, most: Optional[int] = None) -> str:
    """The sha256, in hex, of the first `most` bytes of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            chunk = file.read(1 << 20 if most is None else min(1 << 20, most))
            if not chunk:
                return found.hexdigest()
            found.update(chunk)
            if most is not None:
                most -= len(chunk)


def size(path: str) -> int:
    """The size of a file in bytes; -1 when there is none."""
    return os.path.getsize(path) if os.path.isfile(path) else -1


def look(path: str, n_bytes: int, sha256: str) -> List[Any]:
    """What is there of a file: ["whole"], ["part", bytes, their sha256] or ["none"]."""
    if size(path) == n_bytes and digest(path) == sha256:
        return ["whole"]
    there = size(path + ".part")
    if 0 < there <= n_bytes:
        return ["part", there, digest(path + ".part")]
    return ["none"]


def take(path: str, offset: int, n_bytes: int, sha256: str) -> Dict[str, Any]:
    """Appends standard input to the first `offset` bytes of PATH.part; when that is the whole file, renames it."""
    part = path + ".part"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(part, "r+b" if os.path.exists(part) else "wb") as file:
        file.truncate(offset)
        file.seek(offset)
        while True:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                break
            file.write(chunk)
            file.flush()
        os.fsync(file.fileno())
    if size(part) != n_bytes:
        return {"error": "{} B arrived of {}".format(size(part), n_bytes)}
    if digest(part) != sha256:
        os.remove(part)
        return {"error": "what arrived has another sha256 than what was sent; it was thrown away"}
    os.replace(part, path)
    return {"error": None}


def write(path: str, text: str) -> None:
    """Writes a text, whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def read(path: str) -> Optional[str]:
    """The text of a file; None when there is none."""
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(1 << 20)


def main() -> None:
    os.umask(0o077)  # the values of --env may be secrets
    given = json.loads(sys.argv[1])
    answer = None  # type: Any
    try:
        if given["do"] == "look":
            answer = {"files": [look(*each) for each in given["files"]]}
        elif given["do"] == "take":
            answer = take(given["path"], given["offset"], given["bytes"], given["sha256"])
        elif given["do"] == "write":
            for path, text in given["texts"]:
                write(path, text)
            answer = {}
        else:
            answer = {"texts": [read(path) for path in given["paths"]]}
    except OSError as error:
        answer = {"error": error.strerror or str(error), "errno": error.errno, "path": error.filename}
    sys.stdout.write("edgekit:" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
