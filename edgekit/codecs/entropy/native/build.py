"""``python -m edgekit.codecs.entropy.native.build [FOLDER]``: compiles the kernels for every machine, into this folder.

The compiler is the package ziglang's, a clang that has glibc's interfaces with it: so one PC compiles for all machines,
for glibc 2.17 (2012) and later, and gives the same bytes wherever it runs.
"""

import os
import subprocess
import sys
from typing import List

from edgekit.codecs.entropy.native.library import MACHINES, file_name

HERE = os.path.dirname(os.path.abspath(__file__))
FLAGS = (
    "-std=c99", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
    # No fused multiply-add: floats as numpy computes them, on every machine.
    "-ffp-contract=off",
    # Nothing that differs between two builds.
    "-s", "-Wl,--build-id=none",
)  # fmt: skip


def command(machine: str, path: str) -> List[str]:
    """The command that compiles the library for `machine` to `path`, to be started in this folder."""
    sources = sorted(name for name in os.listdir(HERE) if name.endswith(".c"))
    target = "{}-linux-gnu.2.17".format(machine)
    return [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, *sources, "-o", path]


def build(folder: str) -> None:
    """Writes the library of every machine to `folder`. CalledProcessError when the compiler ends with an error."""
    for machine in MACHINES:
        path = os.path.join(os.path.abspath(folder), file_name(machine))
        subprocess.run(command(machine, path), cwd=HERE, check=True)


if __name__ == "__main__":
    build(sys.argv[1] if len(sys.argv) > 1 else HERE)
