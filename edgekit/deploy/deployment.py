"""Deployment: what was asked for, what the steps have found, and how a step reports."""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from edgekit.bundle import Bundle
from edgekit.deploy.answer import Answer, ask
from edgekit.deploy.board import Facts
from edgekit.deploy.on_board.files import digest
from edgekit.deploy.ssh import Ssh
from edgekit.device_profiles.profile import Profile
from edgekit.errors import EdgekitError, UsageError
from edgekit.line.names import certificate_name_error, name_error

Event = dict[str, Any]
#: This machine, as a host.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Settings(NamedTuple):
    """What was asked for. The paths in `target`, `python` and `arguments` are paths on the board."""

    bundle: str
    device: str | None
    host: str
    name: str | None = None
    ssh: str = "ssh"
    target: str = "edgekit"
    python: str = "python3"
    server: str | None = None
    #: Folder on this machine of the server's CA, which enrols the board; None for a line in the clear.
    identity: str | None = None
    insecure: bool = False
    #: "auto", "systemd" or "process".
    service: str = "auto"
    seconds: float = 2.0
    wheels: str | None = None
    #: NAME=VALUE: environment variables of the processes on the board.
    environment: tuple[str, ...] = ()
    recheck: bool = False
    #: Starts a run that has finished anew; what --out there holds of an earlier one is lost.
    overwrite: bool = False
    #: Seconds for the process to connect.
    timeout_s: float = 60.0
    #: Arguments for `edgekit run`.
    arguments: tuple[str, ...] = ()
    #: Checks a bundle's golden data and the rules of its board: returns a text or raises. None leaves it out.
    check: Callable[[Bundle], str] | None = None


class Finding(NamedTuple):
    """What a step found. If something is to be done, `plan` says what, and `do` does it and says what was done."""

    found: str
    plan: str = ""
    do: Callable[[], str] | None = None
    #: The step was not asked for.
    skipped: bool = False


class File(NamedTuple):
    """A file of this machine, and its path on the board."""

    path: str
    to: str
    n_bytes: int
    sha256: str


def file_at(path: str, to: str) -> File:
    """The `File` at `path`, which goes to `to` on the board."""
    return File(path, to, os.path.getsize(path), digest(path))


class Deployment:
    """What the steps of a deployment share. A comment above the attributes names the step that sets them."""

    # local
    bundle: Bundle
    profile: Profile
    options: argparse.Namespace
    name: str
    files: list[File]
    #: sha256 of the packaged device part.
    part: str
    # board
    facts: Facts
    #: The record that the last deployment of this name left; {} without one.
    record: dict[str, Any]
    # environment
    python: str
    versions: dict[str, str]

    def __init__(self, settings: Settings, ssh: Ssh, scratch: str, show: Callable[[Event], None]) -> None:
        self.settings = settings
        self.ssh = ssh
        #: A folder on this machine that is removed afterwards.
        self.scratch = scratch
        self.show = show

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that --env sets for processes on the board."""
        return dict(pair.split("=", 1) for pair in self.settings.environment)

    @property
    def device_name(self) -> str:
        """The name that the device process joins with: the user's own after --, else the board's in --host.

        One behind a port of this machine, at the end of a tunnel, is called as it calls itself: else all such boards
        would have one name. The deployment's name does not serve: by default it is the same on all boards that have
        one bundle. UsageError for a name that no device can have.
        """
        if self.options.name:
            name = str(self.options.name)
        else:
            name = self.facts.node if self.behind_loopback else self.ssh.host.rpartition("@")[2]
        error = (name_error if self.settings.identity is None else certificate_name_error)(name)
        if error is not None:
            raise UsageError(f"--host {self.ssh.host}: {error}; give the device one of its own: -- --name NAME")
        return name

    @property
    def behind_loopback(self) -> bool:
        """Whether the board is reached by a port of this machine."""
        return self.ssh.host.rpartition("@")[2] in LOOPBACK

    @property
    def base(self) -> str:
        """TARGET/NAME on the board: the deployment's files are BASE.json, BASE.log ..."""
        return f"{self.facts.target}/{self.name}"

    @property
    def bundle_path(self) -> str:
        """The bundle's folder on the board."""
        return f"{self.facts.target}/bundles/{self.bundle.digest[:16]}"

    @property
    def part_path(self) -> str:
        """The packaged device part on the board."""
        return self.files[0].to

    def ask(self, script: str, **argument: Any) -> Answer:
        """The answer of on_board/`script`.py, run by the Python that --python names; DeployError on any error."""
        return ask(self.ssh, self.facts.executable, script, argument, self.variables).require()

    def keep(self, **fields: Any) -> None:
        """Adds to the record on the board."""
        self.record.update(fields)
        self.ask("files", do="write", texts=[[f"{self.base}.json", json.dumps(self.record, indent=1) + "\n"]])

    def warn(self, text: str) -> None:
        self.show({"event": "warning", "text": text})


Step = Callable[[Deployment], Finding]


def run(deployment: Deployment, steps: tuple[tuple[str, Step], ...], dry_run: bool) -> None:
    """Runs the steps in turn: each looks what is there and, unless `dry_run`, does what is still to be done."""
    for name, step in steps:
        began = time.monotonic()
        deployment.show({"event": "begin", "step": name})
        try:
            finding = step(deployment)
            text, state = finding.found, "skipped" if finding.skipped else "nothing to do"
            if finding.do is not None and dry_run:
                text, state = f"{finding.found}; would {finding.plan}", "planned"
            elif finding.do is not None:
                deployment.show({"event": "plan", "step": name, "text": finding.plan})
                text, state = finding.do(), "done"
        except EdgekitError as error:
            deployment.show({"event": "failed", "step": name, "text": str(error), "exit_code": error.exit_code})
            raise
        seconds = time.monotonic() - began
        deployment.show({"event": "step", "step": name, "state": state, "text": text, "seconds": seconds})


def size(n_bytes: float) -> str:
    """ "0.4 MB" of 400,000; powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale / 10:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def one_word(text: str, what: str) -> str:
    """`text` itself; UsageError unless it can name files and a systemd unit."""
    if not text or not text.isascii() or not text.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(f"{what} {text!r}: expected letters, digits, - . and _, for it names files and a unit")
    return text
