"""The modules of the package and what each imports, read from syntax trees."""

import ast
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


def module_name(file: str) -> str:
    """The module that lies in `file`, a path from the root: "edgekit/line/frame.py" is edgekit.line.frame."""
    return ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")


def modules() -> dict[str, Path]:
    """Every module of the package by its name; the links in edgekit/ lead to the folders beside it."""
    found = {}
    for folder, _, files in os.walk(ROOT / "edgekit", followlinks=True):
        for path in (Path(folder, file) for file in files if file.endswith(".py")):
            found[module_name(str(path.relative_to(ROOT)))] = path
    return found


MODULES = modules()


class Import(NamedTuple):
    """`module` is imported at `line`; `on_load` is False inside functions and under TYPE_CHECKING."""

    module: str
    line: int
    on_load: bool


def imports(tree: ast.AST, known: Container[str] = MODULES, on_load: bool = True) -> Iterator[Import]:
    """What `tree` imports. ``from a import b`` imports a.b where that is a module `known`, else a."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(inner if inner in known else source, node.lineno, on_load)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))
            yield from (Import(str(name), node.lineno, on_load) for name in names)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        type_checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        yield from imports(node, known, on_load and not function and not type_checking)
