"""The deployments on a board: their state, their logs, and stopping them."""

import functools
import sys
import time
from typing import Any, NamedTuple

from edgekit.deploy import process
from edgekit.deploy.answer import Answer, ask, command, parse
from edgekit.deploy.record import parse as parse_record
from edgekit.deploy.ssh import Ssh
from edgekit.errors import DeployError


class Place(NamedTuple):
    """The place of deployments on a board."""

    ssh: Ssh
    python: str
    target: str
    #: The environment variables that --env sets for the Python there.
    variables: dict[str, str]

    def ask(self, do: str, name: str | None, **argument: Any) -> Answer:
        argument.update(do=do, base=self.target if name is None else f"{self.target}/{name}")
        return ask(self.ssh, self.python, "process", argument, self.variables).require()


def names(at: Place) -> list[str]:
    """The names of the deployments there."""
    return [str(name) for name in at.ask("list", None).get("names", dict)]


def the_name(at: Place, name: str | None) -> str:
    """`name` if it is a deployment, or without a name the only one; else DeployError lists them."""
    found = names(at)
    where = f"{at.ssh.host}:{at.target}"
    if not found:
        raise DeployError(f"{where} has no deployment; `edgekit deploy BUNDLE --host {at.ssh.host}` makes one")
    if name is None and len(found) > 1:
        raise DeployError(f"{where} has {len(found)} deployments: choose one with --name: {', '.join(found)}")
    if name is not None and name not in found:
        raise DeployError(f"{where} has no deployment {name!r}, but {', '.join(found)}")
    return name or found[0]


def status(at: Place, name: str) -> dict[str, Any]:
    """The state, the last events and the record of a deployment, as JSON values."""
    state = at.ask("state", name)
    record = parse_record(state.maybe("record", str)) or {}
    found = process.latest(state)
    pid = state.maybe("pid", int)
    epoch = found.get("epoch") or found.get("done") or {}
    return {
        "name": name,
        "running": pid is not None,
        "pid": pid,
        "state": f"process {pid} runs, since {process.since(state)}" if pid is not None else process.ended(state),
        "exit": state.maybe("exit", int),
        "progress": process.said(state) or process.restarting(state) or "not connected yet",
        **{key: epoch.get(key) for key in ("epoch", "epochs", "accuracy")},
        **{key: record.get(key) for key in ("bundle", "model", "cut", "device", "server", "service", "figures")},
        "deployed": record.get("deployed"),
        "last_words": "" if pid is not None or state.maybe("exit", int) == 0 else process.last_words(state),
        "last_event": next(reversed(found.values()), None),
    }


def stop(at: Place, name: str) -> str:
    """Stops the process; returns how it ended, in words."""
    return f"{name}: {process.stop(functools.partial(at.ask, name=name))}"


def logs(at: Place, name: str, lines: int, on: bool) -> None:
    """Writes the last `lines` of the log to standard output, and with `on` goes on with what comes."""
    if at.ask("state", name).maybe("log", str) is None:
        raise DeployError(f"{at.ssh.host}: nothing was started as {name} yet; --server HOST:PORT does")
    argument = {"do": "follow", "base": f"{at.target}/{name}", "lines": lines, "on": on}

    def show(line: bytes) -> None:
        if line.startswith(b"edgekit:"):
            parse(line, at.ssh.host).require()
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    words = command(at.python, "process", argument, at.variables)
    # Standard input stays open while somebody listens: when it ends, the script on the board ends too.
    done = at.ssh.run(words, listening() if on else None, on_output=show)
    if done.code:
        raise DeployError(f"{at.ssh.host}: {done.words}")


def listening() -> Any:
    """Yields no bytes, for ever."""
    while True:
        time.sleep(0.2)
        yield b""
