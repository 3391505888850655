"""Several commands, each as a program of its own, in one process: what they all import is imported once.

A new process per command would spend nearly all of its time on importing torch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: The checkout stays importable from any folder, installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
#: Runs every command as ``python COMMAND`` would, from a file or with ``-m``: as ``__main__``, with its own arguments
#: and its own first folder on the path.
PROGRAM = """
import contextlib, io, json, os, runpy, sys, traceback

def run(first, *arguments):
    if first == "-m":
        first, *arguments = arguments
        sys.argv[:] = [first, *arguments]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(first, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [first, *arguments]
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        runpy.run_path(first, run_name="__main__")

results, paths = [], list(sys.path)
for command in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(*command)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            code = 1
            traceback.print_exc()
    sys.path[:] = paths
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def run_together(commands: Sequence[Sequence[str]], folder: Path) -> list[Done]:
    """How each of `commands` ended in one process that ran them in `folder`, one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps([list(command) for command in commands]), cwd=folder,
        env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Done(*result) for result in json.loads(done.stdout)]
