"""`edgekit measure` as a process of its own, and whether it ends clean."""

import os
import subprocess
import sys
import time
from pathlib import Path

import edgekit

ROOT = Path(edgekit.__file__).parents[1]
#: A network of a few layers; the children need no module of the tests.
NETWORK = ("tests.conftest:SmallNet", "--cut", "features", "--input", "1,16,16")


def start(*arguments: str, folder: Path) -> "subprocess.Popen[str]":
    """`edgekit measure` with `arguments` in the `folder`."""
    command = [sys.executable, "-m", "edgekit", "measure", *arguments]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def end_with(process: "subprocess.Popen[str]", least: int) -> None:
    """Ends `process` once it has `least` children, and asserts that it says so and that none of them is left."""
    children: list[int] = []
    until = time.monotonic() + 300
    while len(children) < least:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
    # As Ctrl-C, which a suite run in the background may ignore.
    process.terminate()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in err
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
