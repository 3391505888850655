"""Who may import whom: the tables below, held against the syntax tree of every file and against running processes."""

import ast
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.import_trees import MODULES, ROOT, imports


class May(NamedTuple):
    """What may be imported when a module is loaded, and what besides inside its functions."""

    load: frozenset[str]
    call: frozenset[str] = frozenset()


CODECS = frozenset({"edgekit", "edgekit.errors", "edgekit.codecs", "numpy"})
CORE = CODECS | {"edgekit.data", "edgekit.line", "edgekit.providers", "edgekit.signals"}

#: A module belongs to the longest name here that it starts with: the standard library and that row are open to it.
AREAS = {
    "edgekit": May(CORE),
    "edgekit.errors": May(frozenset()),
    "edgekit.signals": May(frozenset()),
    "edgekit.providers": May(frozenset({"edgekit.errors"})),
    "edgekit.codecs": May(CODECS),
    "edgekit.data": May(CORE - {"edgekit.line"}),
    "edgekit.line": May(frozenset({"edgekit", "edgekit.errors", "edgekit.line", "numpy"})),
    # A host's: boards do not emulate lines.
    "edgekit.link": May(CORE | {"edgekit.link"}),
    "edgekit.cli": May(
        frozenset({"edgekit.cli", "edgekit.errors", "edgekit.signals", "click", "rich"}),
        CORE - {"numpy"}
        | {
            "edgekit.deploy",
            "edgekit.federate",
            "edgekit.federate.simulation",
            "edgekit.identity",
            "edgekit.launch",
            "edgekit.link",
            "edgekit.measure",
            "edgekit.report",
            "edgekit.runtime",
            "edgekit.export",
            "edgekit.server",
            "edgekit.device_profiles",
        },
    ),
    # A host's: it exports, starts the processes and adds up.
    "edgekit.launch": May(
        CORE | {"edgekit.launch", "edgekit.link", "edgekit.runtime", "edgekit.export", "edgekit.server"}
    ),
    "edgekit.measure": May(
        CORE
        | {
            "edgekit.deploy",
            "edgekit.launch",
            "edgekit.link",
            "edgekit.measure",
            "edgekit.report",
            "edgekit.runtime",
            "edgekit.export",
            "edgekit.server",
        }
    ),
    # A host's, in Flower's environment. Mod and strategy load numpy alone, as their own test sees.
    "edgekit.federate.flower": May(CODECS | {"edgekit.federate", "edgekit.federate.flower", "flwr"}),
    "edgekit.federate.simulation": May(
        CORE | {"edgekit.export", "edgekit.federate", "edgekit.federate.simulation", "edgekit.launch"}
    ),
    # A host's: the board is spoken to through ssh alone.
    "edgekit.deploy": May(CORE | {"edgekit.deploy", "edgekit.device_profiles", "edgekit.identity", "edgekit.runtime"}),
    # A host's: the CA, which is where the server is.
    "edgekit.identity": May(CORE | {"edgekit.identity", "cryptography"}),
    "edgekit.report": May(CORE | {"edgekit.report"}, frozenset({"jinja2", "matplotlib"})),
    "edgekit.runtime": May(CORE | {"edgekit.runtime"}),
    "edgekit.export": May(
        CORE | {"edgekit.device_profiles", "edgekit.export", "edgekit.link", "torch", "onnx", "onnxruntime"}
    ),
    # A host's: whole networks in PyTorch.
    "edgekit.federate": May(CORE | {"edgekit.federate", "edgekit.server", "torch"}),
    "edgekit.server": May(CODECS | {"edgekit.identity", "edgekit.line", "edgekit.server", "torch", "grpc"}),
    "edgekit.device_profiles": May(
        frozenset({"edgekit.errors", "edgekit.providers", "edgekit.device_profiles", "tomllib", "tomli"})
    ),
}
#: What single modules may import besides.
ALSO = {
    # What it gives by name, imported when asked for.
    "edgekit": May(frozenset(), frozenset({"edgekit.export", "edgekit.launch", "edgekit.runtime", "edgekit.server"})),
    "edgekit.__main__": May(frozenset({"edgekit.cli"})),
    "edgekit.data.folder": May(frozenset(), frozenset({"PIL"})),
    # The app of `edgekit federate`.
    "edgekit.federate.flower.client_app": May(frozenset({"edgekit.federate.simulation", "torch"})),
    "edgekit.federate.flower.server_app": May(frozenset({"edgekit.federate.simulation", "torch"})),
    "edgekit.runtime.transport": May(frozenset({"grpc"})),
    "edgekit.runtime.backends.ascend.calls": May(frozenset(), frozenset({"acl"})),
    "edgekit.runtime.backends.onnxruntime": May(frozenset(), frozenset({"onnxruntime"})),
    "edgekit.runtime.backends.tensorrt.backend": May(frozenset(), frozenset({"tensorrt"})),
    "edgekit.export.parity.golden": May(frozenset({"edgekit.runtime"})),
    "edgekit.export.parity.report": May(frozenset({"edgekit.runtime"})),
    "edgekit.export.plan.chart": May(frozenset(), frozenset({"matplotlib"})),
    "edgekit.server.observe.metrics": May(frozenset({"prometheus_client"})),
    "edgekit.export.rate.chart": May(frozenset(), frozenset({"matplotlib"})),
}
NOT_ON_DEVICES = {"cryptography", "torch", "onnx", "click", "rich", "sklearn", "PIL"}


def area(module: str) -> str:
    return max((name for name in AREAS if f"{module}.".startswith(f"{name}.")), key=len)


def offences(module: str, source: str) -> list[str]:
    row, also = AREAS[area(module)], ALSO.get(module, May(frozenset()))
    load = row.load | also.load
    call = load | row.call | also.call
    found = []
    for name, line, on_load in imports(ast.parse(source)):
        top = name.split(".")[0]
        # `import edgekit` gives the version alone.
        if name != "edgekit" and top not in sys.stdlib_module_names:
            target = area(name) if top == "edgekit" else top
            if target not in (load if on_load else call):
                found.append(f"{module}:{line} imports {name}" + (" outside a function" if target in call else ""))
    return found


def test_every_file_keeps_to_the_table() -> None:
    assert len(MODULES) > 40
    found = [line for module, path in MODULES.items() for line in offences(module, path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_table_names_modules_that_exist() -> None:
    assert set(AREAS) | set(ALSO) <= set(MODULES)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edgekit.line.frame", "import torch"),
        ("edgekit.line.frame", "def f():\n    import torch"),
        ("edgekit.line.frame", "from edgekit.runtime.backends.base import Backend"),
        ("edgekit.line.frame", "from edgekit import runtime"),
        ("edgekit.line.frame", "from . import errors"),
        ("edgekit.line.frame", "from edgekit.data.base import Dataset"),
        ("edgekit.runtime.session", "from edgekit.link.link import Link"),
        ("edgekit.line.frame", "import importlib\nimportlib.import_module('torch.nn')"),
        ("edgekit.codecs.base", "from edgekit.data.base import Dataset"),
        ("edgekit.data.folder", "from PIL import Image"),
        ("edgekit.cli.run", "from edgekit.bundle import open_bundle"),
        ("edgekit.cli.run", "def f():\n    import torch"),
        ("edgekit.runtime.session", "import grpc"),
        ("edgekit.runtime.session", "def f():\n    from edgekit.export import split"),
        ("edgekit.runtime.backends.onnxruntime", "import onnxruntime"),
        ("edgekit.runtime.backends.null", "def f():\n    import onnxruntime"),
        ("edgekit.export.split", "from edgekit.runtime.backends.registry import backend_class"),
        ("edgekit.export.build", "if True:\n    from edgekit.server import train"),
        ("edgekit.server.train", "from edgekit.runtime import optim"),
        ("edgekit.server.train", "import onnx"),
        ("edgekit.launch.train", "def f():\n    from edgekit.cli import rate"),
        ("edgekit.device_profiles", "import numpy"),
    ],
)
def test_the_check_sees(module: str, source: str) -> None:
    assert len(offences(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edgekit.line.frame", "import json, numpy as np\nfrom edgekit.errors import PayloadError"),
        ("edgekit.data.folder", "def f():\n    from PIL import Image"),
        ("edgekit.cli.run", "import click\ndef f():\n    from edgekit.runtime.loop import Device"),
        ("edgekit.cli.run", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import edgekit.bundle"),
        ("edgekit.runtime.backends.onnxruntime", "def f():\n    import onnxruntime.capi"),
        ("edgekit.export.parity.golden", "from edgekit.runtime.backends.registry import backend_class"),
    ],
)
def test_the_check_allows(module: str, source: str) -> None:
    assert offences(module, source) == []


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in a fresh process after `statement`."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_device_part_loads_nothing_of_the_host() -> None:
    device = [name for name in MODULES if area(name) in CORE | {"edgekit.runtime"} and name != "edgekit.__main__"]
    assert "edgekit.runtime.__main__" in device
    loaded = loaded_by("import " + ", ".join(device))
    assert "numpy" in loaded
    assert not loaded & (NOT_ON_DEVICES | {"onnxruntime"})


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_by("from edgekit.cli import main\ntry: sys.argv[1:] = ['--help']; main()\nexcept SystemExit: pass")
    assert "click" in loaded
    assert not loaded & (NOT_ON_DEVICES - {"click"} | {"numpy", "onnxruntime", "grpc"})
