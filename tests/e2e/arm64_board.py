"""A 64-bit Arm board's Python under qemu, on a PC: ``python arm64_board.py FOLDER``.

Unpacks Debian's Python 3.11 for arm64 into FOLDER, with what the device part needs, and prints the words that start it
on an emulated Cortex-A57, the Jetson Nano's core. Called again with that FOLDER it only prints them. Nothing outside
FOLDER changes. Exit code 75, with the reason, where this machine lacks a program or cannot reach Debian or the package
index.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n"
PACKAGES = (
    "python3.11", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1",
    "libstdc++6", "libexpat1", "zlib1g", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1",
)  # fmt: skip
#: Later versions of ONNX Runtime crash at import under the qemu 7.2 of Debian 12.
WHEELS = ("numpy==1.26.4", "onnxruntime==1.23.2", "grpcio==1.62.3")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
PROGRAMS = {"qemu-aarch64-static": "qemu-user-static", "apt-get": "apt", "dpkg": "dpkg"}
#: What apt and pip say of a server that they cannot reach.
UNREACHABLE = ("Could not resolve", "Could not connect", "Failed to fetch", "connection broken", "Could not fetch URL")
#: EX_TEMPFAIL of sysexits.h
NOT_HERE = 75


def main(folder: Path) -> None:
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            give_up(f"{program} is not here: install Debian's package {package}")
    root, ready = folder / "root", folder / "ready"
    recipe = Path(__file__).read_text(encoding="utf-8")
    if not (ready.is_file() and ready.read_text(encoding="utf-8") == recipe):
        unpack_debian(folder, root)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "2", "--no-deps", "--no-compile"]
        install += ["--upgrade", "--target", str(root / "usr/lib/python3/dist-packages"), "--only-binary", ":all:"]
        install += ["--python-version", "3.11", *(word for name in PLATFORMS for word in ("--platform", name)), *WHEELS]
        call(install)
        ready.write_text(recipe, encoding="utf-8")
    emulator = ["qemu-aarch64-static", "-cpu", "cortex-a57", "-L", str(root), str(root / "usr/bin/python3.11")]
    # Compiled modules are kept: under qemu compiling them takes longer than all else at the start. -s: the packages
    # that users of this machine have installed are of its own processor.
    settings = ["PYTHONDONTWRITEBYTECODE=", f"PYTHONPYCACHEPREFIX={folder / 'compiled'}", "OPENBLAS_NUM_THREADS=1"]
    sys.stdout.write(shlex.join(["env", *settings, *emulator, "-s"]) + "\n")


def unpack_debian(folder: Path, root: Path) -> None:
    """Unpacks PACKAGES into `root`; what apt keeps is below `folder` too."""
    apt, debs = folder / "apt", folder / "debs"
    for needed in (apt / "lists/partial", apt / "cache/archives/partial", debs, root):
        needed.mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(SOURCE, encoding="utf-8")
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any", "Acquire::Languages": "none", "Dir::Cache": apt / "cache",
        "Dir::State::Lists": apt / "lists", "Dir::State::status": apt / "status",
        "Dir::Etc::sourcelist": apt / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
    }  # fmt: skip
    words = ["apt-get", "-qq", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    call([*words, "update"])
    call([*words, "download", *PACKAGES], debs)
    for deb in sorted(debs.glob("*.deb")):
        call(["dpkg", "-x", str(deb), str(root)])


def call(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = done.stdout + done.stderr
        reasons = [line for line in said.splitlines() if any(words in line for words in UNREACHABLE)]
        if reasons:
            give_up(f"what {Path(command[0]).name} downloads cannot be reached: {reasons[0]}")
        sys.exit(f"{shlex.join(command)} ended with exit code {done.returncode}:\n{said}")


def give_up(reason: str) -> None:
    sys.stderr.write(reason + "\n")
    sys.exit(NOT_HERE)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    main(Path(sys.argv[1]).absolute())
