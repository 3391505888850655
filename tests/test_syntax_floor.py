"""The device part is Python 3.6: no newer syntax, no newer parts of the standard library, no newer numpy."""

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOST = {
    "cli",
    "deploy",
    "device_profiles",
    "export",
    "federate",
    "identity",
    "launch",
    "link",
    "measure",
    "report",
    "server",
}
#: What `edgekit deploy` sends to a board as a script.
SCRIPTS = "deploy/on_board/*.py"
BUILTIN_GENERICS = {"dict", "frozenset", "list", "set", "tuple", "type"}
#: Came after 3.6, or after numpy 1.19.
NEWER = {
    "contextlib.nullcontext",
    "dataclasses",
    "contextvars",
    "functools.cache",
    "functools.cached_property",
    "functools.singledispatchmethod",
    "graphlib",
    "importlib.metadata",
    "importlib.resources",
    "math.comb",
    "math.dist",
    "math.isqrt",
    "math.lcm",
    "math.perm",
    "math.prod",
    "numpy.typing",
    "time.monotonic_ns",
    "time.perf_counter_ns",
    "time.process_time_ns",
    "time.time_ns",
    "tomllib",
    "typing.Annotated",
    "typing.Final",
    "typing.Literal",
    "typing.Protocol",
    "typing.Self",
    "typing.TypedDict",
    "typing.final",
    "typing.get_args",
    "typing.get_origin",
    "zoneinfo",
}
#: Keyword arguments that came later, by the function's last name.
NEWER_ARGUMENTS = {("run", "capture_output"), ("run", "text"), ("Popen", "text"), ("zip", "strict")}
NEWER_METHODS = {"bit_count", "removeprefix", "removesuffix"}


def device_part() -> list[Path]:
    """All of edgekit/, links followed, but for the host's folders; and `SCRIPTS`."""
    found = list((ROOT / "edgekit").glob(SCRIPTS))
    for folder, folders, files in os.walk(ROOT / "edgekit", followlinks=True):
        if Path(folder) == ROOT / "edgekit":
            folders[:] = set(folders) - HOST
        found += [Path(folder, file) for file in files if file.endswith(".py")]
    return sorted(found)


def offences(source: str) -> list[str]:
    try:
        tree = ast.parse(source, feature_version=(3, 6))
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    lines = {message: node for node in ast.walk(tree) for message in _newer(node)}
    return [f"line {getattr(node, 'lineno', '?')}: {message}" for message, node in lines.items()]


def _newer(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        names = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        yield from names & (NEWER | {"__future__.annotations"})
    elif isinstance(node, ast.Import):
        yield from {alias.name for alias in node.names} & NEWER
    elif isinstance(node, ast.Attribute):
        name = re.sub(r"^np\.", "numpy.", ast.unparse(node))
        yield from {name} & NEWER | {node.attr} & NEWER_METHODS
    elif isinstance(node, ast.Call):
        function = ast.unparse(node.func).rpartition(".")[2]
        yield from (f"{function}({k.arg}=)" for k in node.keywords if (function, k.arg) in NEWER_ARGUMENTS)
    elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
        yield from _newer_annotation(node.annotation)
    elif isinstance(node, ast.FunctionDef) and node.returns:
        yield from _newer_annotation(node.returns)


def _newer_annotation(annotation: ast.expr) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield f"annotation {ast.unparse(node)}"
        elif isinstance(node, ast.Subscript):
            name = ast.unparse(node.value)
            if name in BUILTIN_GENERICS or name.startswith(("np.", "numpy.", "collections.")):
                yield f"annotation {ast.unparse(node)}"


@pytest.mark.parametrize("path", device_part(), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_python_3_6(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


def test_device_part_is_all_there() -> None:
    names = {str(path.relative_to(ROOT / "edgekit")) for path in device_part()}
    assert {
        "line/frame.py",
        "codecs/base.py",
        "data/digits.py",
        "runtime/loop.py",
        "runtime/backends/onnxruntime.py",
    } <= names
    on_host = {name for name in names if name.startswith(tuple(HOST))}
    assert all(Path(name).match(SCRIPTS) for name in on_host)


@pytest.mark.parametrize(
    "source",
    [
        "if (n := 3): pass",
        "def f(a, /): pass",
        "with (open('a') as a, open('b') as b): pass",
        "match 1:\n    case 1: pass",
        "from __future__ import annotations",
        "from dataclasses import dataclass",
        "import dataclasses",
        "from typing import Literal",
        "import typing\nx: typing.Protocol = 1",
        "def f(a: int | None): pass",
        "def f(a) -> list[int]: pass",
        "x: dict[str, int] = {}",
        "def f(a: np.ndarray[int]): pass",
        "import math\nmath.prod([1])",
        "import subprocess\nsubprocess.run([], capture_output=True)",
        "'a'.removeprefix('b')",
        "zip([], [], strict=True)",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert len(offences(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from typing import Dict, List, NamedTuple, Optional\nx: Optional[Dict[str, List[int]]] = None",
        "class A:\n    run: 'np.dtype[int]'\n    def f(self, *, a: int = 1 | 2) -> 'A': return self",
        "import time\nf'{time.perf_counter()}'\nx = [*y, *z]",
    ],
)
def test_the_check_allows(source: str) -> None:
    assert offences(source) == []


def test_a_real_python_3_6_compiles_it() -> None:
    homes = sorted(Path.home().glob(".pyenv/versions/3.6.*/bin/python"))
    python = str(homes[0]) if homes else shutil.which("python3.6")
    if python is None:
        pytest.skip("no Python 3.6 here (looked for python3.6 and in pyenv): the syntax trees were checked above")
    code = "import sys\nfor p in sys.argv[1:]: compile(open(p, encoding='utf-8').read(), p, 'exec')"
    done = subprocess.run([python, "-c", code, *map(str, device_part())], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
