"""Step "files": sends bundle and device part to the board, unless it has them by hash; resumes what was cut short."""

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

from edgekit.deploy.answer import answered, command
from edgekit.deploy.deployment import Deployment, File, Finding, size
from edgekit.errors import DeployError

CHUNK = 1 << 16
#: Bytes that must stay free on the board's disk, for records and logs.
MARGIN = 16_000_000
ENOSPC = 28


def files(d: Deployment) -> Finding:
    """Finds which files the board lacks, and whether there is room for them."""
    d.files = [file._replace(to=f"{d.facts.target}/{file.to}") for file in d.files]
    return send(d, d.files)


def send(d: Deployment, wanted: list[File]) -> Finding:
    """The files of `wanted` that the board lacks; `do` sends them."""
    answer = d.ask("files", do="look", files=[[file.to, file.n_bytes, file.sha256] for file in wanted])
    seen = answer.get("files", list)
    if len(seen) != len(wanted):
        raise DeployError(f"{d.ssh.host} answered about {len(seen)} files, asked were {len(wanted)}")
    lacking = [(file, _there(file, found)) for file, found in zip(wanted, seen, strict=True) if found != ["whole"]]
    n_bytes = sum(file.n_bytes - there for file, there in lacking)
    held = sum(there for _, there in lacking)
    in_part = f" ({size(held)} of them from a transfer that was cut short)" if held else ""
    whole = f"{len(wanted) - len(lacking)} of {len(wanted)} files are there{in_part}"
    if not lacking:
        return Finding(f"{whole}, with the right hashes")
    if n_bytes + MARGIN > d.facts.free_disk:
        raise DeployError(
            f"{d.ssh.host}: not enough disk: {size(n_bytes)} to send and {size(MARGIN)} to spare, "
            f"{size(d.facts.free_disk)} free at {d.facts.target}; make room there, or choose another "
            "folder with --target"
        )

    def do() -> str:
        done = 0
        for file, there in lacking:
            _take(d, file, there, done, n_bytes)
            done += file.n_bytes - there
        return f"{len(lacking)} of {len(wanted)} files sent, {n_bytes} B{in_part}, hashes compared there"

    return Finding(whole, f"send {len(lacking)} files, {n_bytes} B ({size(n_bytes)})", do)


def _there(file: File, found: Any) -> int:
    """The bytes that the board has of `file` already, as the start of it; 0 when they differ, to start again."""
    if not isinstance(found, list) or found[:1] != ["part"] or len(found) != 3 or type(found[1]) is not int:
        return 0
    with open(file.path, "rb") as opened:
        begins = opened.read(max(found[1], 0))
    return len(begins) if hashlib.sha256(begins).hexdigest() == found[2] else 0


def _take(d: Deployment, file: File, offset: int, done: int, of: int) -> None:
    def chunks() -> Iterator[bytes]:
        sent = done
        with open(file.path, "rb") as opened:
            opened.seek(offset)
            for chunk in iter(functools.partial(opened.read, CHUNK), b""):
                yield chunk
                sent += len(chunk)
                d.show({"event": "progress", "step": "files", "file": file.to, "bytes": sent, "of": of})

    python = d.facts.executable
    argument = {"do": "take", "path": file.to, "offset": offset, "bytes": file.n_bytes, "sha256": file.sha256}
    answer = answered(d.ssh, python, d.ssh.run(command(python, "files", argument, d.variables), chunks()))
    if answer.maybe("errno", int) == ENOSPC:
        raise DeployError(
            f"{d.ssh.host}: the disk is full: {answer.get('error', str)} while {file.to} was written; make room there, "
            "or choose another folder with --target; what has arrived stays, the same command goes on from there"
        )
    answer.require()
