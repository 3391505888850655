"""Step "environment": a Python on the board that has what the device process needs, if need be a new environment."""

import glob
import os

from edgekit.deploy.board import MODULES, VENDOR, Facts, lacking, probe
from edgekit.deploy.deployment import Deployment, Finding, file_at
from edgekit.deploy.files import send
from edgekit.deploy.ssh import assignments, quote
from edgekit.errors import DeployError, UsageError
from edgekit.runtime.backends.registry import entry_of

#: Module -> what pip calls it.
PACKAGES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "grpc": "grpcio"}
#: The last versions with wheels for Python 3.6, and a pip for it: the one that comes with it cannot read those wheels.
LAST_FOR_36 = {"numpy": "1.19.5", "onnxruntime": "1.10.0", "grpc": "1.48.2"}
PIP_FOR_36 = "pip==21.3.1"


def environment(d: Deployment) -> Finding:
    """Chooses a Python: the board's own, that of an earlier deployment's environment, or a new environment's."""
    facts, needed = d.facts, [*MODULES]
    module = entry_of(d.options.backend).vendor
    if module is not None:
        why = lacking(facts, facts.executable, [module])
        if why:
            raise DeployError(
                f"{d.ssh.host}: {facts.executable} cannot import {module} ({why[module]}); {VENDOR[module]}. Another "
                "Python that has it: --python PATH. On the board's processor instead: -- --backend onnxruntime"
            )
        needed.append(module)
    for python in (facts.executable, facts.environment):
        if python in facts.modules and not lacking(facts, python, needed):
            return Finding(f"{python} (Python {facts.version}) has {_choose(d, python)}")
    python = facts.environment
    lack = lacking(facts, python if python in facts.modules else facts.executable, needed)
    crashed = [name for name, why in lack.items() if "signal" in why]
    if crashed:
        raise DeployError(
            f"{d.ssh.host}: {crashed[0]} of {facts.executable}: {lack[crashed[0]]}; built for another processor? "
            "numpy 1.19.5 on a Cortex-A57 (Jetson Nano) is known for it: --env OPENBLAS_CORETYPE=ARMV8"
        )
    told = "; ".join(f"{name}: {why}" for name, why in sorted(lack.items()))
    if facts.noexec:
        raise DeployError(
            f"{d.ssh.host}: {facts.executable} lacks {told}; they cannot be loaded from {facts.target}, whose file "
            "system is mounted noexec: name a folder on another disk with --target DIR, or a Python that has them with "
            "--python PATH"
        )
    wanted = packages(facts, sorted(lack))
    d.python = python

    def do() -> str:
        install(d, wanted)
        facts_now = probe(d.ssh, d.settings.python, d.settings.target, d.variables, d.profile)
        still = lacking(facts_now, python, needed)
        if still:
            raise DeployError(f"{d.ssh.host}: {python} still lacks {still} after pip has installed {wanted}")
        d.facts = facts_now
        return f"{' '.join(wanted)} installed; {python} has {_choose(d, python)}"

    return Finding(f"{facts.executable} lacks {told}", f"make {facts.target}/environment with {' '.join(wanted)}", do)


def packages(facts: Facts, modules: list[str]) -> list[str]:
    """The requirements that pip is asked to install."""
    if facts.python[:2] == (3, 6):
        return [f"{PACKAGES[name]}=={LAST_FOR_36[name]}" for name in modules]
    return [f"{PACKAGES[name]}>={MODULES[name]}" for name in modules]


def install(d: Deployment, wanted: list[str]) -> None:
    """Makes the environment, unless it is there, and has pip install `wanted`; DeployError with pip's words."""
    facts, given = d.facts, assignments(d.variables)
    python = given + quote(facts.environment)
    folder = quote(os.path.dirname(os.path.dirname(facts.environment)))
    make = f"{given}{quote(facts.executable)} -m venv --system-site-packages"
    made = d.ssh.run(f"{make} {folder}")
    if made.code:  # Debian without python3-venv: the system's pip serves the environment too
        made = d.ssh.run(f"{make} --without-pip {folder}")
    if made.code:
        raise DeployError(
            f"{d.ssh.host}: {facts.executable} cannot make an environment: sudo apt-get install python3-venv\n"
            f"it said: {made.words}"
        )
    if d.ssh.run(f"{python} -m pip --version").code:
        raise DeployError(f"{d.ssh.host}: {facts.executable} has no pip: sudo apt-get install python3-venv python3-pip")
    source = _wheels(d)
    upgrade = [[PIP_FOR_36]] if facts.python[:2] == (3, 6) else []
    for names in (*upgrade, wanted):
        words = " ".join(map(quote, names))
        done = d.ssh.run(
            f"{python} -m pip install --disable-pip-version-check --only-binary :all: {source} {words}",
            on_error_line=lambda line: d.show({"event": "says", "step": "environment", "text": line}),
        )
        if done.code:
            raise DeployError(
                f"{d.ssh.host}: pip cannot install {' '.join(names)} for Python {facts.version} on {facts.machine}.\n"
                f"Where the board has no internet, fetch the wheels here and send them with --wheels DIR:\n"
                f"  {download(facts, [*upgrade[:1], wanted])}\npip said: {done.words}"
            )


def download(facts: Facts, groups: list[list[str]]) -> str:
    """The command with which a user fetches the wheels on a host."""
    short = "".join(map(str, facts.python[:2]))
    names = " ".join(f"'{name}'" for group in groups for name in group)
    forms = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
    platforms = " ".join(f"--platform {form}_{facts.machine}" for form in forms)
    return f"pip download -d DIR --only-binary :all: --python-version {short} {platforms} {names}"


def _wheels(d: Deployment) -> str:
    """pip's options for --wheels, whose wheels it sends to the board; "" without."""
    if d.settings.wheels is None:
        return ""
    found = sorted(glob.glob(os.path.join(glob.escape(d.settings.wheels), "*.whl")))
    if not found:
        raise UsageError(f"--wheels {d.settings.wheels}: no file there ends in .whl")
    folder = f"{d.facts.target}/wheels"
    sending = send(d, [file_at(path, f"{folder}/{os.path.basename(path)}") for path in found])
    if sending.do is not None:
        sending.do()
    return f"--no-index --find-links {quote(folder)}"


def _choose(d: Deployment, python: str) -> str:
    """The versions of `python`'s modules, in words; makes it the deployment's Python."""
    d.python = python
    found = d.facts.modules[python]
    d.versions = {name: str(found[name].version) for name in found if found[name].version is not None}
    return ", ".join(f"{name} {version}" for name, version in sorted(d.versions.items()))
