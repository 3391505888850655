"""Facts: what the probe tells of a board, parsed and held to the profile."""

import time
from typing import Any, NamedTuple

from edgekit.deploy.answer import Answer, answered, command
from edgekit.deploy.ssh import Ssh
from edgekit.device_profiles.profile import Profile
from edgekit.errors import DeployError

#: Module that belongs to a board's system image -> where it comes from: no package index has it for a board.
VENDOR = {
    "tensorrt": "it comes with JetPack: sudo apt-get install nvidia-jetpack (python3-libnvinfer)",
    "acl": "it comes with CANN: --env PYTHONPATH=... --env LD_LIBRARY_PATH=... as its set_env.sh sets them",
}
#: Module -> oldest version of it that the device part runs with.
MODULES = {"numpy": "1.19", "onnxruntime": "1.10", "grpc": "1.48"}


class Module(NamedTuple):
    """A module as one Python imports it: its version, or why it cannot."""

    version: str | None
    why: str


class Facts(NamedTuple):
    """A board as found."""

    python: tuple[int, ...]
    #: The Python that was asked, perhaps a script that starts one, and TARGET: both absolute.
    executable: str
    target: str
    home: str
    machine: str
    system: str
    free_disk: int
    free_memory: int | None
    #: By how much the clock there is outside the time that the answer took here, in seconds.
    skew_s: float
    #: What `systemctl --user is-system-running` says, and logind's Linger: "yes", "no" or "" without logind.
    systemd: str
    linger: str
    #: By Python, by module.
    modules: dict[str, dict[str, Module]]

    @property
    def version(self) -> str:
        """Of Python, "3.6.9"."""
        return ".".join(map(str, self.python))

    @property
    def environment(self) -> str:
        """The Python of the environment that deploy makes."""
        return f"{self.target}/environment/bin/python"


def probe(ssh: Ssh, python: str, target: str, variables: dict[str, str], profile: Profile) -> Facts:
    """What `python` on the board tells, with `variables` set; DeployError when it is none or too old."""
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
    """The facts in the probe's answer, which was asked for and came at these times of the clock here."""
    now = answer.get("time", float)
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
        answer.get("free_disk", int),
        answer.maybe("free_memory", int),
        min(now - began, 0.0) + max(now - ended, 0.0),
        answer.get("systemd", str),
        answer.get("linger", str),
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
    """What `python` lacks of the modules `names`, and why; one that is too old is lacking too."""
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
    """[1, 19] of "1.19.5rc1"; what is no number ends it."""
    numbers: list[int] = []
    for part in version.split(".")[:2]:
        if not part.isdigit():
            break
        numbers.append(int(part))
    return numbers or [0]
