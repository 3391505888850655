"""The steps of a deployment, in their order."""

import tempfile
from collections.abc import Callable

from edgekit.deploy.board import probe
from edgekit.deploy.deployment import LOOPBACK, Deployment, Event, Finding, Settings, run, size
from edgekit.deploy.enrolment import identity
from edgekit.deploy.environment import environment
from edgekit.deploy.files import files
from edgekit.deploy.health import health
from edgekit.deploy.local import local, rules
from edgekit.deploy.record import load
from edgekit.deploy.service import service
from edgekit.deploy.ssh import Ssh
from edgekit.deploy.verify import check
from edgekit.errors import DeployError

#: Seconds between the clocks of host and board from which on a warning is given.
SKEW_S = 60.0


def board(d: Deployment) -> Finding:
    """Step "board": connects, and asks the board for its facts."""
    facts = d.facts = probe(d.ssh, d.settings.python, d.settings.target, d.variables, d.profile)
    if facts.refused:
        raise DeployError(
            f"{d.ssh.host}: nothing can be written to {facts.target}: {facts.refused}; name a folder on another disk "
            "with --target DIR"
        )
    d.record = load(d)
    if abs(facts.skew_s) > SKEW_S:
        d.warn(f"the board's clock is {facts.skew_s:+.0f} s off this machine's: times in its records will be wrong")
    server = (d.settings.server or "").rpartition(":")[0]
    if server.strip("[]") in LOOPBACK and not d.behind_loopback:
        d.warn(f"--server {d.settings.server} is, for the board, the board itself: give this machine's address")
    memory = "" if facts.free_memory is None else f", {size(facts.free_memory)} of memory"
    clock = f"its clock is {facts.skew_s:+.1f} s off" if facts.skew_s else "its clock agrees"
    return Finding(
        f"{d.ssh.host}: Python {facts.version}, {facts.machine}; free: {size(facts.free_disk)} at {facts.target}"
        f"{memory}; {clock}"
    )


STEPS = (
    ("local", local),
    ("board", board),
    ("rules", rules),
    ("files", files),
    ("environment", environment),
    ("check", check),
    ("identity", identity),
    ("service", service),
    ("health", health),
)


def deploy(settings: Settings, show: Callable[[Event], None], dry_run: bool = False) -> None:
    """Runs every step; `show` is called with events about each."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch, Ssh(settings.host, settings.ssh) as ssh:
        run(Deployment(settings, ssh, scratch, show), STEPS, dry_run)
