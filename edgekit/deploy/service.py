"""Step "service": starts the device process, by systemd or on its own, so that it outlives the connection.

::

    TARGET/NAME.sh     what runs; systemd's unit runs it too
    TARGET/NAME.pid    its process id      NAME.log  what the process says      NAME.exit  its exit code, at the end
    TARGET/NAME.overwrite    told to the script as it starts: what --out holds may be lost
"""

import functools
import posixpath
import time

from edgekit.deploy.deployment import Deployment, Finding
from edgekit.deploy.enrolment import identity_path
from edgekit.deploy.process import GRACE_S, ended, said, since, stop
from edgekit.deploy.ssh import quote
from edgekit.deploy.verify import process
from edgekit.errors import DeployError
from edgekit.kept import NAMES

#: Seconds until a process is started again, doubled each time up to the longest; after so many seconds of running it
#: begins anew. One that is killed, or crashes, is given up after so many times without such a run.
PAUSE_S, LONGEST_S, LONG_S, MOST = 5, 300, 600, 5
# dash ignores signals for what it has started in the background, but Python sets its own handler for SIGTERM.
SCRIPT = """#!/bin/sh
# Written by `edgekit deploy`: the device process {name}. Where the line to the server broke (exit code 9), or a signal
# ended it that nobody meant as a request, it is started again. Any other end would come again, or was meant.
cd || exit 1
[ ! -f {base}.log ] || mv -f {base}.log {base}.log.old
rm -f {base}.exit
overwrite=
[ ! -f {base}.overwrite ] || overwrite=--overwrite
rm -f {base}.overwrite
stopped=
child=
trap 'stopped=yes; [ -z "$child" ] || kill -TERM "$child"' TERM INT HUP
echo $$ >{base}.pid

await() {{
    # The request may have come before the child was known.
    [ -z "$stopped" ] || kill -TERM "$child" 2>/dev/null
    wait "$child"
    code=$?
    # A signal ends the wait, not the child.
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
    child=
}}

pause={pause}
crashes=0
while :; do
    began=$(date +%s)
    {process} ${{overwrite:-{resume}}} </dev/null >>{base}.log 2>&1 &
    child=$!
    await
    [ -z "$stopped" ] || break
    [ "$code" -eq 9 ] || {{ [ "$code" -gt 130 ] && [ "$code" -ne 143 ]; }} || break
    # What it keeps from now on is this run's, and it goes on from that.
    grep -q '"event": "connected"' {base}.log && overwrite=
    if [ $(($(date +%s) - began)) -ge {long} ]; then
        pause={pause}
        crashes=0
    fi
    [ "$code" -eq 9 ] || crashes=$((crashes + 1))
    [ "$crashes" -le {most} ] || break
    echo '{{"event": "restarts", "code": '"$code"', "wait_s": '"$pause"'}}' >>{base}.log
    # Second by second: a signal that comes just as a longer sleep begins is lost on it.
    slept=0
    while [ -z "$stopped" ] && [ "$slept" -lt "$pause" ]; do
        sleep 1
        slept=$((slept + 1))
    done
    code=130
    [ -z "$stopped" ] || break
    pause=$((pause * 2))
    [ "$pause" -le {longest} ] || pause={longest}
done
echo "$code" >{base}.exit
exit "$code"
"""

# The script starts the device process again; systemd does so only with a script that was killed itself.
UNIT = """[Unit]
Description=edgekit device {name}: {model} for {device}

[Service]
ExecStart=/bin/sh {script}
KillMode=mixed
TimeoutStopSec={grace:.0f}
Restart=on-abnormal
RestartSec={pause}
OOMPolicy=continue
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
    out, again = d.options.out, d.settings.overwrite
    state = ask(do="state", kept=[] if out is None else [posixpath.join(out, name) for name in NAMES])
    pid = state.maybe("pid", int)
    same = state.maybe("script", str) == script and state.maybe("unit", str) == unit
    if pid is not None and same:
        return Finding(f"process {pid} runs as asked for, since {since(state)}, by {kind}")
    if state.maybe("exit", int) == 0 and same and not again:
        return Finding(f"it has finished ({said(state)}), and is not started again; --overwrite does")
    kept = state.get("kept", list)
    if kept and not again and not d.options.resume:
        raise DeployError(
            f"{d.ssh.host}: --out {out} there holds the halves of an earlier run ({', '.join(map(str, kept))}), and "
            "nothing was started or stopped: choose another folder, --resume (after the --) to go on with it, or "
            "--overwrite (before the --) to lose them"
        )
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
        ask(do="start", unit=unit, overwrite=again and out is not None)
        return f"{stopped}started by {kind} ({why}); log {d.base}.log"

    shown = f"{plan}: {d.base}.sh" + (f", unit edgekit-{d.name}.service:\n{unit}" if unit else "")
    return Finding(found, shown, do)


def kind_of(d: Deployment) -> tuple[str, str]:
    """ "systemd" or "process", and why; DeployError when systemd is asked for but does not serve this user."""
    wanted, facts = d.settings.service, d.facts
    if wanted == "process":
        return "process", "as asked for"
    problem = facts.no_units and f"no unit can be written there: {facts.no_units}"
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
    return SCRIPT.format(
        name=d.name, base=quote(d.base), process=process(d, words),
        resume="--resume" if d.options.out is not None else "", pause=PAUSE_S, longest=LONGEST_S, long=LONG_S,
        most=MOST,
    )  # fmt: skip


def unit_text(d: Deployment) -> str:
    """The systemd unit that runs the script."""
    return UNIT.format(
        name=d.name, model=_plain(d.bundle.model), device=_plain(d.profile.name), script=unit_word(f"{d.base}.sh"),
        grace=GRACE_S, pause=PAUSE_S,
    )  # fmt: skip


def unit_word(text: str) -> str:
    """`text` as one word of a unit's command line: quoted, with systemd's specifiers and variables escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ").replace("\\", "/")
