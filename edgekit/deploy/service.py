"""Step "service": starts the device process, by systemd or on its own, so that it outlives the connection.

::

    TARGET/NAME.sh     what runs; systemd's unit runs it too
    TARGET/NAME.pid    its process id      NAME.log  what the process says      NAME.exit  its exit code, at the end
"""

import functools
import time

from edgekit.deploy.deployment import Deployment, Finding
from edgekit.deploy.enrolment import identity_path
from edgekit.deploy.process import GRACE_S, ended, since, stop
from edgekit.deploy.ssh import quote
from edgekit.deploy.verify import process
from edgekit.errors import DeployError

# dash ignores signals for what it has started in the background, but Python sets its own handler for SIGTERM.
SCRIPT = """#!/bin/sh
# Written by `edgekit deploy`: the device process {name}. Nothing restarts it: it could not rejoin its session.
cd || exit 1
[ ! -f {base}.log ] || mv -f {base}.log {base}.log.old
rm -f {base}.exit
{process} </dev/null >{base}.log 2>&1 &
child=$!
trap 'kill -TERM $child' TERM INT HUP
echo $$ >{base}.pid
wait $child
code=$?
# A signal ends the wait, not the child.
while kill -0 $child 2>/dev/null; do
    wait $child
    code=$?
done
echo $code >{base}.exit
exit $code
"""

UNIT = """[Unit]
Description=edgekit device {name}: {model} for {device}

[Service]
ExecStart=/bin/sh {script}
KillMode=mixed
TimeoutStopSec={grace:.0f}
Restart=no
# Stopped on request.
SuccessExitStatus=130
"""


def service(d: Deployment) -> Finding:
    """Starts the device process; leaves one that runs as asked for, and replaces any other of this name."""
    if d.settings.server is None:
        return Finding("nothing is started without --server HOST:PORT", skipped=True)
    kind, why = kind_of(d)
    script, unit = script_text(d), unit_text(d) if kind == "systemd" else None
    ask = functools.partial(d.ask, "process", base=d.base)
    state = ask(do="state")
    pid = state.maybe("pid", int)
    same = state.maybe("script", str) == script and state.maybe("unit", str) == unit
    if pid is not None and same:
        return Finding(f"process {pid} runs as asked for, since {since(state)}, by {kind}")
    found = f"process {pid} runs otherwise" if pid is not None else ended(state)
    for other, its in d.ask("process", do="list", base=d.facts.target).get("names", dict).items():
        if its is not None and other != d.name:
            d.warn(f"{other} runs there too (process {its}): --name {other} --stop ends it")
    plan = f"{'stop it and ' * (pid is not None)}start by {kind} ({why})"

    def do() -> str:
        stopped = f"{stop(ask)}; " if pid is not None else ""
        d.ask("files", do="write", texts=[[f"{d.base}.sh", script]])
        d.keep(
            name=d.name, host_bundle=d.settings.bundle, bundle=d.bundle.digest, model=d.bundle.model, cut=d.bundle.cut,
            device=d.profile.name, server=d.settings.server, service=kind, arguments=list(d.settings.arguments),
            deployed=time.time(),
        )  # fmt: skip
        ask(do="start", unit=unit)
        return f"{stopped}started by {kind} ({why}); log {d.base}.log"

    shown = f"{plan}: {d.base}.sh" + (f", unit edgekit-{d.name}.service:\n{unit}" if unit else "")
    return Finding(found, shown, do)


def kind_of(d: Deployment) -> tuple[str, str]:
    """ "systemd" or "process", and why; DeployError when systemd is asked for but does not serve this user."""
    wanted, facts = d.settings.service, d.facts
    if wanted == "process":
        return "process", "as asked for"
    problem = ""
    if facts.systemd not in ("running", "degraded", "starting"):
        problem = f"no systemd of this user answers there ({facts.systemd or 'no systemctl'})"
    elif facts.linger == "no":
        problem = "systemd there ends this user's services at logout (`sudo loginctl enable-linger $USER` changes that)"
    if not problem:
        return "systemd", f"systemd of this user is {facts.systemd}"
    if wanted == "systemd":
        raise DeployError(f"{d.ssh.host}: --service systemd: {problem}; --service process does without")
    return "process", problem


def script_text(d: Deployment) -> str:
    """The shell script that runs on the board."""
    own = [] if d.options.name is not None else ["--name", d.device_name]
    tls = ["--identity", identity_path(d)] if d.settings.identity is not None else ["--insecure"] * d.settings.insecure
    words = ["--server", str(d.settings.server), *tls, "--backend", d.options.backend, "--json", *own]
    words += d.settings.arguments
    return SCRIPT.format(name=d.name, base=quote(d.base), process=process(d, words))


def unit_text(d: Deployment) -> str:
    """The systemd unit that runs the script."""
    return UNIT.format(
        name=d.name, model=_plain(d.bundle.model), device=_plain(d.profile.name), script=unit_word(f"{d.base}.sh"),
        grace=GRACE_S,
    )  # fmt: skip


def unit_word(text: str) -> str:
    """`text` as one word of a unit's command line: quoted, with systemd's specifiers and variables escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ").replace("\\", "/")
