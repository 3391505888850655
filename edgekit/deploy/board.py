"""Facts: what a board says about itself to the probe script, parsed and checked against the profile."""

import time
from typing import Any, NamedTuple

from edgekit.deploy.answer import Answer, answered, command
from edgekit.deploy.ssh import Ssh
from edgekit.device_profiles.profile import Profile
from edgekit.errors import DeployError

#: Module of a board's system image, which no package index has for boards -> where it comes from.
VENDOR = {
    "tensorrt": "it comes with JetPack: sudo apt-get install nvidia-jetpack (python3-libnvinfer)",
    "acl": "it comes with CANN: --env PYTHONPATH=... --env LD_LIBRARY_PATH=... as its set_env.sh sets them",
}
#: Module -> oldest version of it that the device part runs with.
MODULES = {"numpy": "1.19", "onnxruntime": "1.10", "grpc": "1.48"}


class Module(NamedTuple):
    """A module in one Python: its version, or why it cannot be imported."""

    version: str | None
    why: str


class Facts(NamedTuple):
    """What the probe script found on a board."""

    python: tuple[int, ...]
    #: Absolute paths: the Python that ran the probe (or a script that starts it), and TARGET.
    executable: str
    target: str
    home: str
    machine: str
    system: str
    #: Its own host name.
    node: str
    free_disk: int
    #: Why nothing can be written to TARGET, and whether no library there can be loaded (a disk mounted noexec).
    refused: str
    noexec: bool
    free_memory: int | None
    #: Seconds by which the board's clock is off, beyond what the time of asking can explain.
    skew_s: float
    #: The output of `systemctl --user is-system-running`, and logind's Linger: "yes", "no" or "" without logind.
    systemd: str
    linger: str
    #: Why no unit can be written for it; empty where one can.
    no_units: str
    #: Path of a Python -> name of a module -> module.
    modules: dict[str, dict[str, Module]]

    @property
    def version(self) -> str:
        """The version of Python, "3.6.9"."""
        return ".".join(map(str, self.python))

    @property
    def environment(self) -> str:
        """The path of the Python in the virtual environment that deploy makes."""
        return f"{self.target}/environment/bin/python"


def probe(ssh: Ssh, python: str, target: str, variables: dict[str, str], profile: Profile) -> Facts:
    """The facts, asked of `python` on the board with `variables` set; DeployError when it is no Python or too old."""
    modules = [*MODULES, *VENDOR]
    argument = {"python": python, "target": target, "modules": modules}
    began = time.time()
    answer = answered(ssh, python, ssh.run(command(python, "probe", argument, variables)))
    facts = parse(answer, began, time.time())
    floor = tuple(int(part) for part in profile.python.split("."))
    if facts.python[: len(floor)] < floor:
        raise DeployError(
            f"{ssh.host}: {facts.executable} is Python {facts.version}, {profile.name} needs {profile.python} or "
            "newer; install one there and name it with --python PATH"
        )
    return facts


def parse(answer: Answer, began: float, ended: float) -> Facts:
    """The facts in the probe's answer, asked for at `began` and received at `ended` by the clock here."""
    now = answer.get("time", float)
    disk = Answer(answer.get("disk", dict), "the board")
    python = answer.get("python", list)
    if len(python) != 3 or any(type(part) is not int for part in python):
        raise DeployError(f"the board answered Python version {python!r:.100}: expected three numbers")
    return Facts(
        tuple(python),
        answer.get("executable", str),
        answer.get("target", str),
        answer.get("home", str),
        answer.get("machine", str),
        answer.get("system", str),
        answer.get("node", str),
        disk.get("free", int),
        disk.get("refused", str),
        disk.get("noexec", bool),
        answer.maybe("free_memory", int),
        min(now - began, 0.0) + max(now - ended, 0.0),
        answer.get("systemd", str),
        answer.get("linger", str),
        answer.get("units", str),
        {str(path): _modules(found) for path, found in answer.get("modules", dict).items()},
    )


def _modules(found: Any) -> dict[str, Module]:
    if not isinstance(found, dict):
        raise DeployError(f"the board answered modules {found!r:.100}: expected an object")
    modules = {}
    for name, words in found.items():
        if not isinstance(words, list) or len(words) != 2 or not all(isinstance(word, str) for word in words):
            raise DeployError(f"the board answered {words!r:.100} for module {name!r}: expected two texts")
        modules[name] = Module(words[1], "") if words[0] == "ok" else Module(None, words[1])
    return modules


def lacking(facts: Facts, python: str, names: list[str]) -> dict[str, str]:
    """Those of the modules `names` that `python` cannot import or has too old -> why."""
    lack = {}
    for name in names:
        found = facts.modules.get(python, {}).get(name, Module(None, "was not asked for"))
        floor = MODULES.get(name, "0")
        if found.version is None:
            lack[name] = found.why
        elif _numbers(found.version) < _numbers(floor):
            lack[name] = f"{found.version} is older than {floor}"
    return lack


def _numbers(version: str) -> list[int]:
    """[1, 19] of "1.19.5rc1": the first two numbers, up to what is no number."""
    numbers: list[int] = []
    for part in version.split(".")[:2]:
        if not part.isdigit():
            break
        numbers.append(int(part))
    return numbers or [0]
