"""A bundle for the Jetson Nano on what that board runs: Python 3.6, numpy 1.19.5, onnxruntime 1.10.0, grpcio 1.48.2.

Of edgekit the 3.6 has what `edgekit package-device` wrote, and nothing of the checkout.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import sklearn
import torch
from torch import nn

import edgekit
from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.entropy import kernels
from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.data.base import Dataset
from edgekit.export.build import NORMS, build_bundle
from edgekit.export.fold import settle_norms
from edgekit.export.models.registry import build
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.identity import authority
from tests.e2e import every_codec
from tests.package_index import pip

#: The last versions with wheels for Python 3.6; pip 18, which comes with it, does not know the form of those wheels.
PIP = "pip==21.3.1"
PACKAGES = ("numpy==1.19.5", "onnxruntime==1.10.0", "grpcio==1.48.2")
ROOT = Path(edgekit.__file__).parent.parent
BOARD_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
}
ENVIRONMENT = {**BOARD_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
#: Where scikit-learn is not installed, digits are read from a copy of its file.
DATA = str(Path(sklearn.__file__).parent / "datasets" / "data")

#: Encodes, takes one training step, encodes again. Run by both Pythons.
STEP = """
import sys
import numpy as np
import onnxruntime
from edgekit import tensorfile
from edgekit.bundle import open_bundle
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.local_loss import one_hot
from edgekit.runtime.optim import optimizer

bundle, given, result = sys.argv[1:]
with open(given, "rb") as file:
    given = tensorfile.loads(file.read())
front = FrontHalf(open_bundle(bundle), "onnxruntime", 1)

def encode():
    batches = [given["images"][i : i + 32] for i in range(0, len(given["images"]), 32)]
    return np.concatenate([front.encode(batch)["codes"].copy() for batch in batches])

arrays = {"codes": encode()}
forward = front.forward(given["images"][:32])
arrays.update({"training.codes": forward.codes["codes"], "feature": forward.feature})
front.open_local()
local = front.local(forward, one_hot(np.arange(32) % 10, 10))
arrays["gradient.local"] = local.gradient
gradients = dict(front.backward(forward, given["gradient"]), **local.gradients)
arrays.update({"gradient." + name: value for name, value in gradients.items()})
front.learn(gradients, optimizer("sgd", {"momentum": 0.9, "weight_decay": 5e-4}), 0.01)
arrays["codes.learned"] = encode()
tensorfile.write(result, arrays)
print(sys.version.split()[0], np.__version__, onnxruntime.__version__)
"""


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Path of each file that `edgekit package-device` writes, by form."""
    folder = tmp_path_factory.mktemp("package")
    command = [sys.executable, "-m", "edgekit", "package-device", "--json", "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr
    return {form: file["path"] for form, file in json.loads(done.stdout)["files"].items()}


@pytest.fixture(scope="session")
def python36(package: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python 3.6 with the device's wheel and PACKAGES; skips where there is no 3.6, or no index to install from."""
    base = find_python36()
    if base is None:
        pytest.skip("no Python 3.6 here (looked for python3.6 on PATH and in pyenv)")
    folder = tmp_path_factory.mktemp("python36") / "venv"
    made = subprocess.run([base, "-m", "venv", folder], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stdout + made.stderr
    python = str(folder / "bin" / "python")
    # The wheel goes first, by the pip that comes with 3.6.
    for packages in (("--no-index", "--no-deps", package["wheel"]), (PIP,), PACKAGES):
        pip(python, "install", *packages, environment=BOARD_ENVIRONMENT)
    return python


def find_python36() -> str | None:
    roots = {Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")), Path.home() / ".pyenv"}
    found = [str(path) for root in sorted(roots) for path in sorted(root.glob("versions/3.6.*/bin/python"))]
    for python in [*found, shutil.which("python3.6")]:
        # pyenv leaves a python3.6 on PATH that runs nothing while another version is chosen.
        if python and subprocess.run([python, "-c", ""], capture_output=True, timeout=300).returncode == 0:
            return python
    return None


def export(path: Path, model: nn.Module, cut: str, dataset: Dataset, norm: str) -> Bundle:
    """For the Jetson Nano: 8 groups, 4 bits, batches of 32."""
    return build_bundle(
        str(path),
        Network(model, "own", cut),
        CalibrationImages(dataset.train_images[:256], dataset.mean, dataset.std, 10),
        Coding(feature_codec("sgq", {"groups": 8, "bits": 4})),
        BoardSettings("jetson-nano", norm),
    )


def normalised(pictures: np.ndarray, dataset: Dataset) -> np.ndarray:
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (dataset.mean, dataset.std))
    return np.asarray((pictures / 255 - mean) / std, dtype=np.float32)


def run(python: str, bundle: Bundle, folder: Path, environment: dict[str, str]) -> tuple[str, Arrays]:
    """What STEP prints, and the arrays that it writes."""
    result = folder / f"{Path(python).name}.{len(list(folder.iterdir()))}.safetensors"
    command = [python, str(folder / "step.py"), bundle.path, str(folder / "given.safetensors"), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), tensorfile.loads(result.read_bytes())


def imported_from(python: str, folder: Path, package: str, path: str) -> set[str]:
    """Where modules of edgekit come from when all that `package` holds are imported, with `path` as PYTHONPATH."""
    with zipfile.ZipFile(package) as opened:
        files = [name for name in opened.namelist() if name.startswith("edgekit/") and name.endswith(".py")]
    names = [name[: -len(".py")].replace("/", ".") for name in files]
    code = f"import sys, {', '.join(names)}\nprint(*(m.__file__ for n, m in sys.modules.items() if n[:7] == 'edgekit'))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, env={**BOARD_ENVIRONMENT, "PYTHONPATH": path}, cwd=folder,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) >= len(names) > 60
    return {file[: file.index("/edgekit/")] for file in files}


def test_every_module_loads_from_the_package_alone(python36: str, package: dict[str, str], tmp_path: Path) -> None:
    site = Path(python36).parents[1] / "lib" / "python3.6" / "site-packages"
    assert imported_from(python36, tmp_path, package["wheel"], "") == {str(site)}
    assert imported_from(python36, tmp_path, package["zip"], package["zip"]) == {package["zip"]}
    paths = [python36, "-c", "import sys; print(*sys.path, sep='\\n')"]
    done = subprocess.run(paths, capture_output=True, text=True, env=BOARD_ENVIRONMENT, cwd=tmp_path, timeout=300)
    assert str(site) in done.stdout.splitlines()
    assert not [path for path in done.stdout.splitlines() if Path(path).is_relative_to(ROOT)]


def test_zip_runs(python36: str, package: dict[str, str], tmp_path: Path, small_bundle: Bundle) -> None:
    """It takes precedence over the wheel that is installed, as the test above shows of its modules."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [python36, package["zip"], *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=BOARD_ENVIRONMENT, cwd=tmp_path, timeout=300)

    done = run("--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python3 " + package["zip"]), done.stderr
    done = run(small_bundle.path, "--measure", "1", "--data", DATA, "--json")
    assert done.returncode == 0, done.stderr
    opened, event = map(json.loads, done.stdout.splitlines())
    assert opened["event"] == "opened" and opened["provider"] == "cpu"
    assert event["event"] == "encoded" and event["images"] > 32 and event["images_per_s"] > 0
    done = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["python"]["value"].startswith("3.6.") and findings["onnxruntime"]["value"] == "1.10.0"
    # Out of the zip, too.
    assert findings["entropy coder"]["value"] == kernels.choose(None).name


@pytest.mark.parametrize("coder", ["numpy", "native"])
def test_every_codec_gives_the_same_bytes(python36: str, tmp_path: Path, coder: str) -> None:
    given = every_codec.given()
    found = every_codec.through([python36], {**BOARD_ENVIRONMENT, "EDGEKIT_CODER": coder}, given, tmp_path)
    every_codec.check_equal(found, given, tmp_path)


@pytest.mark.parametrize("norm", NORMS)
def test_codes_and_gradients_are_those_of_the_host(python36: str, tmp_path: Path, norm: str) -> None:
    dataset = images.fit(registry.load("digits", None), (3, 32, 32))
    network = build("mobilenet_v1", (3, 32, 32), 10, 0)
    torch.manual_seed(0)
    for module in network.modules():
        # At its first values some gradients vanish by symmetry, and have no relative error.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    settle_norms(network, torch.from_numpy(normalised(dataset.train_images[:256], dataset)))
    bundle = export(tmp_path / "bundle", network, "blocks.3.depthwise", dataset, norm)
    model = onnx.ModelProto.FromString(bundle.read("front.onnx"))
    assert (model.opset_import[0].version, bundle.device["name"], bundle.norm) == (11, "jetson-nano", norm)
    assert model.ir_version <= 7 and bundle.graphs["front"].inputs[0].shape == (32, 3, 32, 32)
    rng = np.random.default_rng(0)
    # Not a multiple of 32, so that the static graph gets a batch that must be filled up.
    pictures = normalised(dataset.test_images[:300], dataset)
    gradient = 1e-3 * rng.standard_normal((32, *bundle.feature_shape), dtype=np.float32)
    tensorfile.write(str(tmp_path / "given.safetensors"), {"images": pictures, "gradient": gradient})
    (tmp_path / "step.py").write_text(STEP)

    versions, board = run(python36, bundle, tmp_path, BOARD_ENVIRONMENT)
    _, host = run(sys.executable, bundle, tmp_path, ENVIRONMENT)
    assert versions.startswith("3.6.") and versions.endswith("1.19.5 1.10.0")
    assert board.keys() == host.keys()
    assert len(board["codes"]) == 300 and board["codes"].dtype == np.int32
    for name in ("codes", "training.codes", "codes.learned"):
        assert len(np.unique(host[name])) > 12
        share = float((board[name] == host[name]).mean())
        assert share >= 0.999, f"{name}: {share:.4%} equal"
    # The step moved the weights of the deployed graph too, on both.
    assert (board["codes"] != board["codes.learned"]).mean() > 0.001
    np.testing.assert_allclose(board["feature"], host["feature"], rtol=1e-4, atol=1e-4)
    gradients = [name for name in host if name.startswith("gradient.")]
    # The local head's too, and that of its loss at the cut.
    assert len(gradients) == len(bundle.graphs["front_grad"].outputs) + len(bundle.head) + 1 > 10
    for name in gradients:
        error = np.linalg.norm(board[name] - host[name]) / np.linalg.norm(host[name])
        assert error <= 1e-3, f"{name}: relative error {error:.2e}"


def test_a_device_of_python_3_6_trains(
    python36: str, tmp_path: Path, digits: Dataset, depthwise_net: type[nn.Module]
) -> None:
    """Against `edgekit serve` of this Python, side by side with a device of this Python."""
    torch.manual_seed(0)
    bundle = export(tmp_path / "bundle", depthwise_net(), "6", digits, "batch")
    host = [sys.executable, "-m"]
    server = start(
        ENVIRONMENT, tmp_path, *host, "edgekit", "serve", bundle.path, "--listen", "127.0.0.1:0", "--devices", "2"
    )
    assert server.stdout is not None
    address = f"127.0.0.1:{json.loads(server.stdout.readline())['port']}"
    line = ["--server", address, "--dataset", "digits", "--data", DATA, "--epochs", "5"]
    # What pip made of the wheel's entry point.
    board = [str(Path(python36).with_name("edgekit-run"))]
    devices = [
        start(where, tmp_path, *command, bundle.path, *line, "--share", f"{i}/2", "--out", str(tmp_path / str(i)))
        for i, (where, command) in enumerate([(BOARD_ENVIRONMENT, board), (ENVIRONMENT, [*host, "edgekit.runtime"])])
    ]
    try:
        for device in devices:
            out, err = device.communicate(timeout=300)
            assert device.returncode == 0, err
            events = [json.loads(text) for text in out.splitlines()]
            epochs = [event for event in events if event["event"] == "epoch"]
            assert [event["epoch"] for event in epochs] == [1, 2, 3, 4, 5] and events[-1]["event"] == "done"
            assert epochs[-1]["loss"] < 0.6 * epochs[0]["loss"]
            assert epochs[-1]["accuracy"] > 70
        _, err = server.communicate(timeout=300)
        assert server.returncode == 0, err
    finally:
        for process in (*devices, server):
            process.kill()
            process.communicate()
    first = bundle.arrays("front.safetensors")
    trained = tensorfile.loads((tmp_path / "0" / "front.safetensors").read_bytes())
    assert trained.keys() == first.keys()
    assert any(not np.array_equal(trained[name], first[name]) for name in first)


def test_a_device_of_python_3_6_enrols_and_talks_by_tls(python36: str, tmp_path: Path, small_bundle: Bundle) -> None:
    """Key, request and reasons by the program openssl; the line by gRPC 1.48."""
    ca, me = str(tmp_path / "ca"), tmp_path / "me"
    authority.init(ca, [])
    programs = Path(python36).parent
    enroll = [str(programs / "edgekit-enroll"), "--name", "six", "-o", str(me)]
    done = subprocess.run(enroll, env=BOARD_ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == f"{me}/device.csr\n", done.stderr
    words = ("-m", "edgekit", "serve", small_bundle.path, "--listen", "127.0.0.1:0", "--identity", ca)
    server = start(ENVIRONMENT, tmp_path, sys.executable, *words)
    assert server.stdout is not None
    address = f"127.0.0.1:{json.loads(server.stdout.readline())['port']}"

    def device() -> tuple[int, str]:
        """How a device ended: its exit code, and what it said."""
        settings = ("--data", DATA, "--epochs", "1", "--limit", "64", "--identity", str(me))
        run = [str(programs / "edgekit-run"), small_bundle.path, "--server", address, *settings]
        process = start(BOARD_ENVIRONMENT, tmp_path, *run)
        out, err = process.communicate(timeout=300)
        return process.returncode, out + err

    def sign(by: str) -> None:
        signed = authority.sign(by, (me / "device.csr").read_bytes(), "it")
        (me / "device.pem").write_bytes(signed.certificate)
        (me / "ca.pem").write_bytes(signed.ca)

    try:
        sign(ca)
        code, said = device()
        assert code == 0 and '"device": "six"' in said, said
        authority.revoke(ca, "six")
        code, said = device()
        assert code == 16 and "the certificate of six was revoked" in said, said
        authority.init(str(tmp_path / "other"), [])
        sign(str(tmp_path / "other"))
        code, said = device()
        assert code == 16 and "cannot be trusted, its certificate: unable to get local issuer" in said, said
    finally:
        server.kill()
        server.communicate()


def start(environment: dict[str, str], folder: Path, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*command, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, cwd=folder,
    )  # fmt: skip
