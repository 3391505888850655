"""The cache of built engines on the board's disk: one file per graph and backend, which says what it was built for.

::

    bytes 0..7   "edgekit\\0"       8..11  length of the head, little-endian
    head         JSON: "key" (what it was built for, name -> text), "sha256" and "bytes" of the engine
    the rest     the engine, as the vendor's library wrote it

A file is used only when its key equals the key of what is to be built now, and the engine's bytes have the recorded
hash. Else the caller is told why and builds a new one. The folder may be emptied at any time.
"""

import hashlib
import json
import os
import struct
import tempfile
from typing import Callable, Dict, Optional, Tuple

from edgekit.errors import PayloadError

_MAGIC = b"edgekit\0"
#: What an engine was built for: the model's hash, versions, hardware, precision, shapes.
Key = Dict[str, str]


def folder() -> str:
    """The cache's folder: EDGEKIT_CACHE, else edgekit/engines in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("EDGEKIT_CACHE") or os.path.join(base, "edgekit", "engines")


def path(name: str) -> str:
    """The path of engine `name`, which is a plain file name."""
    return os.path.join(folder(), name + ".engine")


def load(name: str, key: Key, say: Callable[[str], None]) -> Optional[bytes]:
    """The cached engine `name` if it was built for exactly `key`; else None, and `say` is told why."""
    try:
        with open(path(name), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        say("{} cannot be read ({}): built anew".format(path(name), error.strerror))
        return None
    try:
        found, engine = unpack(data)
    except PayloadError as error:
        say("{} is damaged ({}): built anew".format(path(name), error))
        return None
    differing = [field for field in sorted(set(key) | set(found)) if key.get(field) != found.get(field)]
    if differing:
        told = "; ".join(
            "{}: kept {}, here {}".format(field, found.get(field, "none"), key.get(field, "none"))
            for field in differing
        )
        say("{} was built for something else ({}): built anew".format(path(name), told))
        return None
    return engine


def store(name: str, key: Key, engine: bytes, say: Callable[[str], None]) -> None:
    """Caches `engine` as `name`, whole or not at all; `say` is told when the disk does not take it."""
    staged = ""
    try:
        os.makedirs(folder(), exist_ok=True)
        handle, staged = tempfile.mkstemp(prefix=".{}-".format(name), dir=folder())
        with os.fdopen(handle, "wb") as file:
            file.write(pack(key, engine))
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path(name))
    except OSError as error:
        if staged and os.path.exists(staged):
            os.remove(staged)
        say("{} cannot be kept ({}): the next start builds it again; make room, or set EDGEKIT_CACHE".format(
            path(name), error.strerror))  # fmt: skip


def pack(key: Key, engine: bytes) -> bytes:
    """The bytes of the engine's file."""
    head = {"key": key, "sha256": hashlib.sha256(engine).hexdigest(), "bytes": len(engine)}
    raw = json.dumps(head, sort_keys=True).encode()
    return b"".join([_MAGIC, struct.pack("<I", len(raw)), raw, engine])


def unpack(data: bytes) -> Tuple[Key, bytes]:
    """Inverse of `pack`. PayloadError on any bytes that are not a whole, undamaged file."""
    start = len(_MAGIC) + 4
    if len(data) < start or not data.startswith(_MAGIC):
        raise PayloadError("no kept engine: it begins with {!r}".format(data[: len(_MAGIC)]))
    (length,) = struct.unpack_from("<I", data, len(_MAGIC))
    engine = data[start + length :]
    try:
        head = json.loads(data[start : start + length].decode())
        key, digest, size = head["key"], head["sha256"], head["bytes"]
        whole = all(isinstance(text, str) for pair in key.items() for text in pair)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadError("its head does not parse: {!r}".format(error), start) from None
    if not whole:
        raise PayloadError("its key is not made of text", start)
    actual = hashlib.sha256(engine).hexdigest()
    if (actual, len(engine)) != (digest, size):
        raise PayloadError(
            "sha256 {} ({} B), recorded {} ({} B)".format(actual, len(engine), digest, size), start + length
        )
    return key, engine
