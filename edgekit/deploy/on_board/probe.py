"""The facts of a board, as JSON. This script's text is sent there and run by the board's own Python, even an old one.

So it keeps to what Python 2.7 and 3.4 understand. Argument: JSON with "python" (the word that it was run by), "target"
and "modules". The answer is one line that begins with "edgekit:", because login scripts may print other lines.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time

if False:  # typing came with Python 3.5
    from typing import Dict, List, Optional, Tuple  # noqa: F401

#: Flags of a file system on Linux; os.ST_NOEXEC came with Python 3.4.
READ_ONLY, NOEXEC = 1, 8
#: Run by each Python in question. It prints a line for each module at once, because the next one may crash it.
IMPORT = """
import sys
for name in sys.argv[1:]:
    try:
        module = __import__(name)
        words = ["ok", name, str(getattr(module, "__version__", "unknown"))]
    except Exception as error:
        words = ["no", name, "%s: %s" % (type(error).__name__, str(error).replace(chr(10), " ")[:300])]
    sys.stdout.write("edgekit:" + chr(9).join(words) + chr(10))
    sys.stdout.flush()
"""


def run(command):
    # type: (List[str]) -> Tuple[Optional[int], str]
    """Exit code and output of `command`; None as code when it cannot be started."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, _ = process.communicate()
    except OSError:
        return None, ""
    return process.returncode, out.decode("utf-8", "replace").strip()


def modules(python, names):
    # type: (str, List[str]) -> Dict[str, List[str]]
    """Module -> ["ok", version] or ["no", why], as `python` imports them; a crash counts for the module it came in."""
    found = {}  # type: Dict[str, List[str]]
    left = list(names)
    while left:
        command = [python, "-c", IMPORT]
        command.extend(left)
        code, out = run(command)
        for line in out.splitlines():
            words = line.split("\t")
            if line.startswith("edgekit:") and len(words) == 3:
                found[words[1]] = [words[0][len("edgekit:") :], words[2]]
        silent = [name for name in left if name not in found]
        if silent:
            how = "its import ends Python with signal %d" % -code if code and code < 0 else "Python cannot run"
            found[silent[0]] = ["no", how]
        left = silent[1:]
    return found


def free_memory():
    # type: () -> Optional[int]
    """Bytes of memory that programs can still get; None when the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (IOError, OSError, ValueError, IndexError):
        pass
    return None


def disk(path):
    # type: (str) -> Dict[str, object]
    """Of the disk at `path`, which need not exist yet: free bytes, why nothing can be written, and whether noexec."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    found = os.statvfs(path)
    refused = ""
    if not os.access(path, os.W_OK | os.X_OK):
        refused = "the file system of %s is read-only" if found.f_flag & READ_ONLY else "%s is not this user's"
        refused = refused % path
    free = found.f_bavail * found.f_frsize
    return {"free": free, "refused": refused, "noexec": bool(found.f_flag & NOEXEC)}


def systemd():
    # type: () -> Tuple[str, str]
    """The state of this user's systemd, and whether it goes on after the user has logged out (Linger)."""
    runtime = "/run/user/%d" % os.getuid()
    if "XDG_RUNTIME_DIR" not in os.environ and os.path.isdir(runtime):
        os.environ["XDG_RUNTIME_DIR"] = runtime
    _, state = run(["systemctl", "--user", "is-system-running"])
    _, linger = run(["loginctl", "show-user", str(os.getuid()), "--property=Linger"])
    return state.split("\n")[0], linger.replace("Linger=", "")


def main():
    # type: () -> None
    given = json.loads(sys.argv[1])
    target = os.path.abspath(os.path.join(os.path.expanduser("~"), os.path.expanduser(given["target"])))
    environment = os.path.join(target, "environment", "bin", "python")
    old = sys.version_info < (3, 6)
    # The word comes before sys.executable: it may be a script that sets variables for Python.
    python = sys.executable if old else os.path.abspath(shutil.which(given["python"]) or sys.executable)
    pythons = [python] + [environment] * os.path.exists(environment)
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    state, linger = systemd()
    answer = {
        "python": list(sys.version_info[:3]),
        "executable": python,
        "machine": platform.machine(),
        "system": platform.platform(),
        "node": platform.node(),
        "home": os.path.expanduser("~"),
        "target": target,
        "disk": disk(target),
        "units": disk(os.path.join(config, "systemd", "user"))["refused"],
        "free_memory": free_memory(),
        "systemd": state,
        "linger": linger,
        "modules": {each: modules(each, given["modules"]) for each in pythons if not old},
        "time": time.time(),
    }
    sys.stdout.write("edgekit:" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
