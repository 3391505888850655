"""Controls the device process on a board. This script's text is sent there and run by its Python (3.6 or newer).

Argument: JSON with "do": "state", "start", "stop", "follow" or "list" (then "base" is TARGET), and "base": TARGET/NAME,
from the home where it is relative. BASE.sh is what runs; it writes BASE.pid, BASE.log and, when it ends, BASE.exit.
"""

import glob
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

#: Bytes read from the end of the log.
TAIL = 1 << 16


def text(path: str) -> Optional[str]:
    """The end of a file as text; None when there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(os.path.getsize(path) - TAIL, 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return None


def running(base: str) -> Optional[int]:
    """The process id of BASE.sh; None when it does not run, or when another program has that id now."""
    try:
        pid = int(text(base + ".pid") or "")
        with open("/proc/{}/cmdline".format(pid), "rb") as file:
            words = file.read().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(base + ".sh") in words else None


def state(base: str, kept: List[str]) -> Dict[str, Any]:
    """Whether the process runs and since when, or how it ended, with the end of its log; and which of `kept` exist."""
    pid = running(base)
    started = os.path.getmtime(base + ".pid") if os.path.exists(base + ".pid") else None
    code = (text(base + ".exit") or "").strip()
    return {
        "pid": pid,
        "for_s": None if started is None else time.time() - started,
        "exit": int(code) if code.isdigit() and pid is None else None,
        "log": text(base + ".log"),
        "script": text(base + ".sh"),
        "unit": text(unit_path(base)),
        "record": text(base + ".json"),
        "kept": [path for path in kept if os.path.exists(os.path.join(os.path.expanduser("~"), path))],
    }


def unit(base: str) -> str:
    return "edgekit-{}.service".format(os.path.basename(base))


def unit_path(base: str) -> str:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(home, "systemd", "user", unit(base))


def systemctl(*words: str) -> str:
    """What a systemctl command said when it failed; empty when it worked."""
    runtime = "/run/user/{}".format(os.getuid())
    if "XDG_RUNTIME_DIR" not in os.environ and os.path.isdir(runtime):
        os.environ["XDG_RUNTIME_DIR"] = runtime
    done = subprocess.Popen(["systemctl", "--user", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = done.communicate()
    return "" if done.returncode == 0 else "systemctl {}: {}".format(" ".join(words), out.decode("utf-8", "replace"))


def start(base: str, unit_text: Optional[str], overwrite: bool) -> Dict[str, Any]:
    """Starts BASE.sh: by systemd if a unit is given, else in a session of its own."""
    for ending in (".exit", ".pid", ".overwrite"):
        if os.path.exists(base + ending):
            os.remove(base + ending)
    if overwrite:
        open(base + ".overwrite", "w").close()
    if unit_text is not None:
        os.makedirs(os.path.dirname(unit_path(base)), exist_ok=True)
        with open(unit_path(base), "w") as file:
            file.write(unit_text)
        said = systemctl("daemon-reload") or systemctl("start", unit(base))
        if said:
            return {"error": said.strip()}
    else:
        if os.path.exists(unit_path(base)):  # of an earlier deployment
            os.remove(unit_path(base))
        none = os.open(os.devnull, os.O_RDWR)
        subprocess.Popen(["/bin/sh", base + ".sh"], stdin=none, stdout=none, stderr=none, start_new_session=True)
    until = time.time() + 10
    while time.time() < until:
        if os.path.exists(base + ".exit") or running(base):
            return {"error": None}
        time.sleep(0.05)
    return {"error": "it did not start within 10 s"}


def stop(base: str, grace_s: float) -> Dict[str, Any]:
    """Asks the process to end, waits for `grace_s` seconds, and then kills it."""
    pid = running(base)
    if pid is None:
        return {"how": "none"}
    # Sent to the script, which passes it on. systemd would do the same, but report a failure.
    os.kill(pid, signal.SIGTERM)
    until = time.time() + grace_s
    while running(base) is not None:
        if time.time() > until:
            os.killpg(pid, signal.SIGKILL)
            return {"how": "killed"}
        time.sleep(0.05)
    return {"how": "ended"}


def follow(base: str, lines: int, on: bool) -> None:
    """Writes the last `lines` of the log and, with `on`, what comes, until the process ends or nobody listens."""
    with open(base + ".log", "rb") as file:
        sys.stdout.buffer.write(b"".join(file.read().splitlines(True)[-lines:]))
        while on:
            alive = running(base) is not None
            sys.stdout.buffer.write(file.read())
            sys.stdout.buffer.flush()
            readable, _, _ = select.select([0], [], [], 0.3)
            if not alive or readable:
                return


def main() -> None:
    os.umask(0o077)
    given = json.loads(sys.argv[1])
    home = os.path.expanduser("~")
    base = os.path.abspath(os.path.join(home, os.path.expanduser(given["base"])))
    answer = None  # type: Any
    try:
        if given["do"] == "state":
            answer = state(base, given.get("kept", []))
        elif given["do"] == "start":
            answer = start(base, given["unit"], given["overwrite"])
        elif given["do"] == "stop":
            answer = stop(base, given["grace_s"])
        elif given["do"] == "list":
            bases = sorted(path[: -len(".json")] for path in glob.glob(os.path.join(glob.escape(base), "*.json")))
            answer = {"names": {os.path.basename(each): running(each) for each in bases}}
        else:
            follow(base, given["lines"], given["on"])
            return
    except OSError as error:
        answer = {"error": error.strerror or str(error), "errno": error.errno, "path": error.filename}
    sys.stdout.write("edgekit:" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
