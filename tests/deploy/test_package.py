"""The device package: whole, closed under its own imports, the same bytes every time, and it runs from either file."""

import ast
import base64
import csv
import email
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edgekit
from edgekit.cli.package_device import package_device
from edgekit.codecs.entropy import kernels
from edgekit.codecs.entropy.native import library
from edgekit.deploy import package
from edgekit.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
#: Folders of edgekit/ that a board does without.
HOST = {"cli", "deploy", "device_profiles", "export", "identity", "launch", "link", "measure", "report", "server"}
#: What is imported when it is there: engines of boards, readers of files.
OUTSIDE = {"numpy", "grpc", "onnxruntime", "tensorrt", "acl", "PIL"}
#: The archives; the wheel also has its .dist-info.
ZIP, WHEEL = f"edgekit-device-{edgekit.__version__}.zip", f"edgekit_device-{edgekit.__version__}-py3-none-any.whl"
INFO = f"edgekit_device-{edgekit.__version__}.dist-info"
SITE = str(Path(np.__file__).parent.parent)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    assert package.write_zip(str(folder)) == str(folder / ZIP)
    assert package.write_wheel(str(folder)) == str(folder / WHEEL)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        names = opened.namelist()
        assert len(names) == len(set(names))
        return {name: opened.read(name) for name in names}


def python(*arguments: str, path: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python where `path` and the installed libraries, but no edgekit of theirs, can be imported."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # Without `site` no .pth file leads back to the checkout.
    command = [sys.executable, "-S", "-B", *arguments]
    environment["PYTHONPATH"] = os.pathsep.join([path, SITE])
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_holds_the_device_part_as_it_is(written: Path) -> None:
    device = {name: content for name, content in contents(written / ZIP).items() if name.startswith("edgekit/")}
    assert device == package.device_files() == {name: (ROOT / name).read_bytes() for name in device}
    assert list(device) == sorted(device)
    inside = {path.relative_to(ROOT).as_posix() for part in package.PARTS for path in walk(ROOT / "edgekit" / part)}
    assert inside == {name for name in device if name.count("/") > 1} and len(inside) > 60
    assert not any(name.split("/")[1] in HOST for name in device)
    assert {"edgekit/__init__.py", "edgekit/line/frame.py", "edgekit/bundle.py", "edgekit/machine.py"} <= device.keys()
    libraries = {f"edgekit/codecs/entropy/native/{library.file_name(machine)}" for machine in library.MACHINES}
    assert {name for name in device if name.endswith(".so")} == libraries
    # The command line, the emulator of lines and the starting of processes are of hosts.
    assert not {"edgekit/__main__.py", "edgekit/link/emulator.py", "edgekit/launch/processes.py"} & device.keys()


def walk(folder: Path) -> Iterator[Path]:
    for place, _, files in os.walk(folder, followlinks=True):
        yield from (Path(place, file) for file in files if file.endswith((".py", ".so")))


def unsatisfied(files: dict[str, bytes]) -> list[str]:
    """Imports, those inside functions too, and names of modules in tables, that `files` lack."""
    modules = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in files}
    found = []
    for name, content in sources(files).items():
        for node in ast.walk(ast.parse(content)):
            wanted: list[str] = []
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}:{node.lineno} is relative"
                inner = f"{node.module}.{node.names[0].name}"
                # `from edgekit import bundle` wants edgekit.bundle; `from edgekit.bundle import Bundle` wants the same.
                wanted = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "edgekit" else []
                wanted = wanted or [inner if inner in modules else str(node.module)]
            elif isinstance(node, ast.Constant) and re.fullmatch(r"edgekit(\.\w+)+:\w+", str(node.value)):
                wanted = [str(node.value).partition(":")[0]]
            known = modules | OUTSIDE | set(sys.stdlib_module_names)
            found += [f"{name} wants {each}" for each in wanted if each not in known and top(each) not in known]
    return found


def sources(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".py")}


def top(module: str) -> str:
    """The distribution's name of another's module; of ours, the module itself."""
    return module if module.startswith("edgekit") else module.split(".")[0]


def test_every_import_is_satisfied_inside() -> None:
    files = package.device_files()
    # Names of `import edgekit` that only hosts ask for.
    hosts = ("edgekit.export.bundle", "edgekit.launch.train", "edgekit.server.service")
    missing = unsatisfied({**files, "__main__.py": package.MAIN.encode()})
    assert sorted(missing) == [f"edgekit/__init__.py wants {module}" for module in hosts]
    without = {
        name: content for name, content in files.items() if name != "edgekit/runtime/backends/reference/arithmetic.py"
    }
    assert any("wants edgekit.runtime.backends.reference.arithmetic" in line for line in unsatisfied(without))
    assert unsatisfied({"a.py": b"def f():\n    from torch.nn import Linear\n    import edgekit.cli"}) != []
    assert unsatisfied({"a.py": b"TABLE = {'x': 'edgekit.gone:X'}"}) == ["a.py wants edgekit.gone"]


def test_every_file_is_python_3_6() -> None:
    files = {**package.device_files(), "__main__.py": package.MAIN.encode()}
    for name, content in sources(files).items():
        ast.parse(content, name, feature_version=(3, 6))


def test_same_files_same_bytes(written: Path, tmp_path: Path) -> None:
    for name, write in ((ZIP, package.write_zip), (WHEEL, package.write_wheel)):
        assert Path(write(str(tmp_path / "new"))).read_bytes() == (written / name).read_bytes()
        with zipfile.ZipFile(written / name) as opened:
            assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_DEFLATED}
            assert {entry.external_attr >> 16 for entry in opened.infolist()} == {0o644}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [ZIP, WHEEL]


def test_size(written: Path) -> None:
    for name in (ZIP, WHEEL):
        assert 100_000 < (written / name).stat().st_size < 1_000_000


def test_an_installed_edgekit_writes_the_same(written: Path, tmp_path: Path) -> None:
    """As pip leaves it: no links, the licence in .dist-info, and a file of somebody else's beside it."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "edgekit", site / "edgekit", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"edgekit-{edgekit.__version__}.dist-info" / "licenses"
    info.mkdir(parents=True)
    shutil.copy(ROOT / "LICENSE", info)
    (site / "LICENSE").write_text("of another package")
    code = "from edgekit.deploy.package import *; write_zip('{0}'); write_wheel('{0}')".format(tmp_path / "out")
    done = python("-c", code, path=str(site))
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "out" / name).read_bytes() == (written / name).read_bytes() for name in (ZIP, WHEEL))


def test_wheel_describes_itself(written: Path) -> None:
    files = contents(written / WHEEL)
    described = email.message_from_bytes(files[f"{INFO}/METADATA"])
    assert (described["Name"], described["Version"]) == ("edgekit-device", edgekit.__version__)
    assert "never install it beside the distribution\nedgekit" in described.get_payload()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert described["Requires-Python"] == project["requires-python"]
    extra = project["optional-dependencies"]["onnxruntime"]
    bounds = {line for line in [*project["dependencies"], *extra] if "python_version" not in line}
    assert set(package.REQUIRES) | {package.REQUIRES_IMAGES} == bounds
    assert described.get_all("Requires-Dist") == [*package.REQUIRES, f"{package.REQUIRES_IMAGES}; extra == 'images'"]
    assert files[f"{INFO}/LICENSE"] == contents(written / ZIP)["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"Root-Is-Purelib: true\nTag: py3-none-any\n" in files[f"{INFO}/WHEEL"]
    scripts = re.findall(r"^(\S+) = (\S+):main$", files[f"{INFO}/entry_points.txt"].decode(), re.MULTILINE)
    assert [name for name, _ in scripts] == ["edgekit-run", "edgekit-doctor", "edgekit-enroll"]
    for _, module in scripts:
        assert re.search(rb"^def main\(", files[module.replace(".", "/") + ".py"], re.MULTILINE)


def test_record_has_every_file(written: Path) -> None:
    files = contents(written / WHEEL)
    record = list(csv.reader(io.StringIO(files[f"{INFO}/RECORD"].decode())))
    assert [row[0] for row in record] == list(files) and record[-1] == [f"{INFO}/RECORD", "", ""]
    for name, digest, size in record[:-1]:
        algorithm, _, encoded = digest.partition("=")
        assert algorithm == "sha256" and int(size) == len(files[name])
        assert base64.urlsafe_b64decode(encoded + "=") == hashlib.sha256(files[name]).digest()


def test_pip_installs_the_wheel(written: Path, tmp_path: Path) -> None:
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path / "site")]
    done = subprocess.run(
        [sys.executable, *install, str(written / WHEEL)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "bin" / "edgekit-run").is_file()
    assert (tmp_path / "site" / "edgekit" / "bundle.py").read_bytes() == (ROOT / "edgekit" / "bundle.py").read_bytes()
    done = python("-m", "edgekit.runtime", "--help", path=str(tmp_path / "site"))
    assert done.returncode == 0 and "--in-flight" in done.stdout, done.stderr


def test_zip_runs(written: Path) -> None:
    path = str(written / ZIP)
    done = python(path, "--help", path="")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python3 {path}"), done.stderr
    done = python(path, "doctor", "--help", path="")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python3 {path} doctor"), done.stderr
    done = python("-m", "edgekit.runtime", "--help", path=path)
    assert done.returncode == 0 and "--in-flight" in done.stdout, done.stderr
    done = python(path, "nowhere", "--server", "127.0.0.1:1", path="")
    assert done.returncode == 5 and "nowhere is no bundle" in done.stderr


def test_every_module_loads_from_the_zip(written: Path) -> None:
    names = [name.removesuffix(".py").replace("/", ".") for name in sources(package.device_files())]
    code = f"import sys, {', '.join(names)}\nprint(*(m.__file__ for n, m in sys.modules.items() if n[:7] == 'edgekit'))"
    done = python("-W", "error", "-c", code, path=str(written / ZIP))
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) > 60 and all(file.startswith(str(written / ZIP)) for file in files)


def test_compiled_kernels_load_from_the_zip(written: Path, tmp_path: Path) -> None:
    """From a file of their own, which is gone afterwards."""
    code = "import tempfile; tempfile.tempdir = {!r}; from edgekit.codecs.entropy import bits, kernels; import numpy"
    code += "; print(bits.pack(numpy.arange(4), 4).hex(), kernels.choice().name)"
    done = python("-W", "error", "-c", code.format(str(tmp_path)), path=str(written / ZIP))
    assert (done.stdout, done.stderr) == (f"0123 {kernels.choose(None).name}\n", "")
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(package_device, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_says_what_it_wrote(tmp_path: Path) -> None:
    told = json.loads(run("-o", str(tmp_path), "--json"))
    assert told["version"] == edgekit.__version__ and told["requires"] == list(package.REQUIRES)
    assert told["files"] == {
        form: {"path": str(tmp_path / name), "bytes": (tmp_path / name).stat().st_size}
        for form, name in (("wheel", WHEEL), ("zip", ZIP))
    }


@pytest.mark.parametrize(("form", "name", "other"), [("zip", ZIP, WHEEL), ("wheel", WHEEL, ZIP)])
def test_command_writes_one_form(tmp_path: Path, form: str, name: str, other: str) -> None:
    text = run("--out", str(tmp_path), "--format", form)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert f"{tmp_path / name}  {(tmp_path / name).stat().st_size} B\n" in text and other not in text
    assert "pip==21.3.1" in text and "numpy 1.19.5, onnxruntime 1.10.0, grpcio 1.48.2" in text


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a folder"):
        package.write_zip("/dev/null/x")
    (tmp_path / WHEEL).mkdir()
    (tmp_path / WHEEL / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        package.write_wheel(str(tmp_path))
