"""The structure of the tree: rooms that import in one direction, and limits of files, classes and names.

Every file and every sub-folder of a folder is a room. A file below one room that imports a file below another is an
arrow between the two. No arrows of a folder may form a loop: then each room can be read and changed by itself, and
nothing imports from above.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from tests.import_trees import MODULES, ROOT, imports, module_name

#: Lines of a file, and of a class.
FILE, CLASS = 400, 200
#: Names that say nothing about what is in a file.
EMPTY = {"utils", "util", "common", "helpers", "helper"}

#: What goes from one room to another in one folder: the two files of the first import found, by the two rooms.
Arrows = dict[tuple[str, str], tuple[str, str]]


def package() -> dict[str, str]:
    """The text of every file of the package, by its path through the links in edgekit/."""
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in MODULES.values()}


def arrows(sources: Mapping[str, str]) -> dict[str, Arrows]:
    """The arrows of every folder of `sources`, which are texts by path.

    Imports inside functions and under TYPE_CHECKING are arrows too. A name in a table of strings is none: what a
    registry imports on demand is not known to it. Neither is the package's top, which gives the version alone.
    """
    files = {module_name(file): file for file in sources}
    found: dict[str, Arrows] = {}
    for file, text in sources.items():
        for name, line, _ in imports(ast.parse(text), files):
            target = files.get(name)
            if target is None or target == file or name == "edgekit":
                continue
            here, there = Path(file).parts, Path(target).parts
            shared = next(i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b)
            folder, rooms = "/".join(here[:shared]), (here[shared], there[shared])
            found.setdefault(folder, {}).setdefault(rooms, (f"{file}:{line}", target))
    return found


def loop(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows of a shortest loop, each begins where the one before ends; [] where there is none."""
    after: dict[str, list[str]] = {}
    for start, end in pairs:
        after.setdefault(start, []).append(end)
    shortest: list[str] = []
    for room in sorted(after):
        paths, seen = [[room]], set[str]()
        while paths and room not in seen:
            longer = [[*path, end] for path in paths for end in after.get(path[-1], []) if end not in seen]
            seen.update(path[-1] for path in longer)
            paths = longer
        closed = [path for path in paths if path[-1] == room]
        if closed and not 0 < len(shortest) <= len(closed[0]):
            shortest = closed[0]
    return list(pairwise(shortest))


def loops(sources: Mapping[str, str]) -> list[str]:
    """For every folder whose rooms form a loop, a shortest one in words: rooms, then file -> file, line by line."""
    told = []
    for folder, found in sorted(arrows(sources).items()):
        around = loop(found)
        if around:
            rooms = " -> ".join([around[0][0], *(end for _, end in around)])
            told.append("\n    ".join([f"{folder}: {rooms}", *(" -> ".join(found[pair]) for pair in around)]))
    return told


def test_rooms_import_in_one_direction() -> None:
    found = arrows(package())
    assert {"edgekit", "edgekit/export", "edgekit/runtime", "edgekit/runtime/backends", "edgekit/server"} <= set(found)
    assert ("cli", "errors.py") in found["edgekit"]
    told = loops(package())
    assert not told, "these rooms import one another, move what both need to a third:\n" + "\n".join(told)


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (
            {"p/a.py": "from p import b", "p/b.py": "import p.a"},
            ["p: a.py -> b.py -> a.py", "p/a.py:1 -> p/b.py", "p/b.py:1 -> p/a.py"],
        ),
        (
            # Upward: the folder imports the file that imports the folder.
            {"p/a.py": "from p.sub.deep import f", "p/sub/__init__.py": "", "p/sub/deep.py": "\nfrom p.a import g"},
            ["p: a.py -> sub -> a.py", "p/a.py:1 -> p/sub/deep.py", "p/sub/deep.py:2 -> p/a.py"],
        ),
        (
            # No file is in a loop, the two folders are.
            {"p/x/a.py": "import p.y.a", "p/x/b.py": "", "p/y/a.py": "", "p/y/b.py": "import p.x.b"},
            ["p: x -> y -> x", "p/x/a.py:1 -> p/y/a.py", "p/y/b.py:1 -> p/x/b.py"],
        ),
        (
            {
                "p/a.py": "def f():\n    import p.b",
                "p/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.c import C",
                "p/c.py": "import importlib\nimportlib.import_module('p.a')",
            },
            ["p: a.py -> b.py -> c.py -> a.py", "p/a.py:2 -> p/b.py", "p/b.py:3 -> p/c.py", "p/c.py:2 -> p/a.py"],
        ),
        (
            {"p/__init__.py": "from p.a import f", "p/a.py": "from p import f"},
            ["p: __init__.py -> a.py -> __init__.py", "p/__init__.py:1 -> p/a.py", "p/a.py:1 -> p/__init__.py"],
        ),
        (
            # The short loop of two is told, not the long one.
            {"p/a.py": "import p.b", "p/b.py": "import p.c", "p/c.py": "import p.a, p.d", "p/d.py": "import p.c"},
            ["p: c.py -> d.py -> c.py", "p/c.py:1 -> p/d.py", "p/d.py:1 -> p/c.py"],
        ),
    ],
)
def test_the_check_sees(sources: dict[str, str], told: list[str]) -> None:
    assert loops(sources) == ["\n    ".join(told)]


@pytest.mark.parametrize(
    "sources",
    [
        {"p/a.py": "import p.b, p.c", "p/b.py": "import p.c, os", "p/c.py": ""},
        {"p/sub/a.py": "from p.sub.b import f\nfrom p.c import g", "p/sub/b.py": "import p.c", "p/c.py": ""},
        {"p/registry.py": "TABLE = {'a': 'p.a:A'}", "p/a.py": "import p.registry"},
        {
            "edgekit/__init__.py": "from edgekit.a import f",
            "edgekit/a.py": "import edgekit\nprint(edgekit.__version__)",
        },
    ],
)
def test_the_check_allows(sources: dict[str, str]) -> None:
    assert loops(sources) == []


def source_files() -> list[Path]:
    """Every Python file that is kept here: the package, tests and bench."""
    tops = ("edgekit", "export", "runtime", "server", "device_profiles", "tests", "bench")
    return [path for top in tops for path in (ROOT / top).rglob("*.py")]


def classes(text: str) -> Iterator[tuple[str, int]]:
    """Every class of `text` and its lines, with those of its decorators."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            yield node.name, (node.end_lineno or first) - first + 1


def too_long(file: str, text: str) -> list[str]:
    lines = len(text.splitlines())
    found = [f"{file} has {lines} lines, at most {FILE}: split it"] if lines > FILE else []
    return found + [
        f"{file}: class {name} has {length} lines, at most {CLASS}: split it"
        for name, length in classes(text)
        if length > CLASS
    ]


def test_no_file_and_no_class_is_too_long() -> None:
    files = source_files()
    assert len(files) > 50
    found = [line for path in files for line in too_long(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_length_is_counted() -> None:
    longest = "@f\nclass A:\n" + "    x = 1\n" * (CLASS - 2)
    assert too_long("a.py", longest) == too_long("a.py", "x = 1\n" * FILE) == []
    assert too_long("a.py", longest + "    x = 1\n") == [
        f"a.py: class A has {CLASS + 1} lines, at most {CLASS}: split it"
    ]
    assert too_long("a.py", "x = 1\n" * (FILE + 1)) == [f"a.py has {FILE + 1} lines, at most {FILE}: split it"]


def test_no_file_is_named_for_nothing() -> None:
    assert not {path.stem.strip("_") for path in source_files()} & EMPTY
