"""One deployment while it is under way: what was asked, what was found, and how a step says so."""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from edgekit.bundle import Bundle
from edgekit.deploy.answer import Answer, ask
from edgekit.deploy.board import Facts
from edgekit.deploy.ssh import Ssh
from edgekit.device_profiles.profile import Profile
from edgekit.errors import EdgekitError, UsageError

Event = dict[str, Any]


class Settings(NamedTuple):
    """What was asked for. Paths of `target`, `python` and `arguments` are the board's."""

    bundle: str
    device: str | None
    host: str
    name: str | None = None
    ssh: str = "ssh"
    target: str = "edgekit"
    python: str = "python3"
    server: str | None = None
    #: auto, systemd or process.
    service: str = "auto"
    seconds: float = 2.0
    wheels: str | None = None
    #: NAME=VALUE of the processes on the board.
    environment: tuple[str, ...] = ()
    recheck: bool = False
    #: Seconds for the process to connect.
    timeout_s: float = 60.0
    #: Of `edgekit run`.
    arguments: tuple[str, ...] = ()
    #: Holds a bundle to its golden data and the rules of its board, says so, or raises; None: left out.
    check: Callable[[Bundle], str] | None = None


class Finding(NamedTuple):
    """What a step found; with `do` there is something to be done, `plan` says what. `do` returns what was done."""

    found: str
    plan: str = ""
    do: Callable[[], str] | None = None
    #: Nothing was asked for.
    skipped: bool = False


class File(NamedTuple):
    """A file of this machine, and where it goes on the board."""

    path: str
    to: str
    n_bytes: int
    sha256: str


class Deployment:
    """What steps leave for those after them. Each attribute is set by the step in the comment above it."""

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
    #: What earlier deployments of this name have left, {} without any.
    record: dict[str, Any]
    # environment
    python: str
    versions: dict[str, str]

    def __init__(self, settings: Settings, ssh: Ssh, scratch: str, show: Callable[[Event], None]) -> None:
        self.settings = settings
        self.ssh = ssh
        #: A folder of this machine that is gone afterwards.
        self.scratch = scratch
        self.show = show

    @property
    def variables(self) -> dict[str, str]:
        """What --env sets for processes on the board."""
        return dict(pair.split("=", 1) for pair in self.settings.environment)

    @property
    def base(self) -> str:
        """TARGET/NAME on the board: files of the deployment are BASE.json, BASE.log ..."""
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
        """The answer of on_board/`script`.py, run by the Python that --python names; DeployError for an error there."""
        return ask(self.ssh, self.facts.executable, script, argument, self.variables).require()

    def keep(self, **fields: Any) -> None:
        """Adds to the record on the board."""
        self.record.update(fields)
        self.ask("files", do="write", texts=[[f"{self.base}.json", json.dumps(self.record, indent=1) + "\n"]])

    def warn(self, text: str) -> None:
        self.show({"event": "warning", "text": text})


Step = Callable[[Deployment], Finding]


def run(deployment: Deployment, steps: tuple[tuple[str, Step], ...], dry_run: bool) -> None:
    """Each step in turn: finds what is there and, unless `dry_run`, does what lacks."""
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
    """ "0.4 MB"; powers of ten, as disks are sold."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale / 10:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def one_word(text: str, what: str) -> str:
    """`text`, when it can be a file's and a unit's name."""
    if not text or not text.isascii() or not text.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(f"{what} {text!r}: expected letters, digits, - . and _, for it names files and a unit")
    return text
