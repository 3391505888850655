"""The device part of edgekit in one file, for a board: a wheel for pip, or a zip that Python runs as it is.

Both hold this machine's package `edgekit` without what only hosts need. They need Python 3.6 or newer with numpy, ONNX
Runtime and grpcio. The same files give the same bytes.
"""

import ast
import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import edgekit
from edgekit.errors import UsageError
from edgekit.tensorfile import make_folder

ROOT = Path(edgekit.__file__).parent
#: Folders that are packed whole, by these endings. Of the modules beside them, those are packed that another packed
#: module imports.
PARTS = ("codecs", "data", "line", "runtime")
ENDINGS = (".py", ".so")
REQUIRES_PYTHON = ">=3.6"
REQUIRES = ("numpy>=1.19", "onnxruntime>=1.10", "grpcio>=1.48")
#: Needed for `--dataset folder` alone.
REQUIRES_IMAGES = "pillow>=8"

METADATA = """Metadata-Version: 2.1
Name: edgekit-device
Version: {version}
Summary: The part of edgekit that runs on a board
License: Apache-2.0
Requires-Python: {python}
{requires}
Provides-Extra: images
Requires-Dist: {images}; extra == 'images'

Holds the package `edgekit`, of which it is the part that devices run: never install it beside the distribution
edgekit, which holds the same files. The command edgekit-run is the device process, edgekit-doctor says whether the
board is fit for it, edgekit-enroll makes its key and the request for a certificate.
"""
WHEEL = """Wheel-Version: 1.0
Generator: edgekit {version}
Root-Is-Purelib: true
Tag: py3-none-any
"""
ENTRY_POINTS = """[console_scripts]
edgekit-run = edgekit.runtime.__main__:main
edgekit-doctor = edgekit.runtime.doctor:main
edgekit-enroll = edgekit.runtime.enroll:main
"""
#: The program of `python3 THE.zip`.
MAIN = """import sys

program = "python3 " + sys.argv[0]
if sys.argv[1:2] == ["doctor"]:
    from edgekit.runtime.doctor import main

    sys.exit(main(sys.argv[2:], program + " doctor"))
if sys.argv[1:2] == ["enroll"]:
    from edgekit.runtime.enroll import main

    sys.exit(main(sys.argv[2:], program + " enroll"))

from edgekit.runtime.__main__ import main

sys.exit(main(sys.argv[1:], program))
"""


def device_files() -> dict[str, bytes]:
    """The device part: path, such as "edgekit/line/frame.py" -> content, sorted by path."""
    parts = (path for part in PARTS for path in (ROOT / part).rglob("*"))
    paths = [ROOT / "__init__.py", *(path for path in parts if path.suffix in ENDINGS)]
    files: dict[str, bytes] = {}
    while paths:
        path = paths.pop()
        name = f"edgekit/{path.relative_to(ROOT).as_posix()}"
        if name not in files:
            files[name] = path.read_bytes()
            modules = _modules_beside(files[name]) if path.suffix == ".py" else ()
            beside = (ROOT / f"{module}.py" for module in modules)
            paths += [path for path in beside if path.is_file()]
    return dict(sorted(files.items()))


def write_zip(folder: str) -> str:
    """The path of edgekit-device-VERSION.zip, which it writes to `folder`; runs as ``python3 THE.zip BUNDLE ...``.

    With PYTHONPATH=THE.zip its modules run too: ``python3 -m edgekit.runtime``. UsageError when it cannot be written.
    """
    files = {"__main__.py": MAIN.encode(), **_license(""), **device_files()}
    return _write(folder, f"edgekit-device-{edgekit.__version__}.zip", files)


def write_wheel(folder: str) -> str:
    """The path of edgekit_device-VERSION-py3-none-any.whl, which it writes to `folder`; UsageError when it cannot."""
    stem = f"edgekit_device-{edgekit.__version__}"
    info = f"{stem}.dist-info/"
    requires = "\n".join(f"Requires-Dist: {each}" for each in REQUIRES)
    metadata = METADATA.format(
        version=edgekit.__version__, python=REQUIRES_PYTHON, requires=requires, images=REQUIRES_IMAGES
    )
    files = {
        **device_files(),
        **_license(info),
        f"{info}METADATA": metadata.encode(),
        f"{info}WHEEL": WHEEL.format(version=edgekit.__version__).encode(),
        f"{info}entry_points.txt": ENTRY_POINTS.encode(),
    }
    record = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items()]
    files[f"{info}RECORD"] = "".join([*record, f"{info}RECORD,,\n"]).encode()
    return _write(folder, f"{stem}-py3-none-any.whl", files)


def _modules_beside(source: bytes) -> Iterator[str]:
    """Names of modules and packages directly in edgekit that `source` imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "edgekit":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name.split(".")[1] for name in names if name.startswith("edgekit."))


def _license(folder: str) -> dict[str, bytes]:
    """The LICENSE for `folder` of an archive: this distribution's, or in a checkout the one beside the package."""
    installed = ROOT.parent.glob(f"edgekit-{edgekit.__version__}.dist-info/**/LICENSE")
    found = [path for path in (*installed, ROOT.parent / "LICENSE") if path.is_file()]
    return {f"{folder}LICENSE": found[0].read_bytes()} if found else {}


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _write(folder: str, name: str, files: dict[str, bytes]) -> str:
    """The path of a zip archive of `files`, written whole or not at all."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for inside, content in files.items():
            # Without a date, which means 1980: so equal files give equal bytes.
            entry = zipfile.ZipInfo(inside)
            entry.external_attr = 0o644 << 16
            opened.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    make_folder(folder)
    path = os.path.join(folder, name)
    try:
        Path(path + ".new").write_bytes(archive.getvalue())
        os.replace(path + ".new", path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return path
