"""Every command's help, and what wrong input gives: exit code, the name, near names, never a traceback."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.bundle import Bundle, write_bundle
from edgekit.cli import COMMANDS, main

#: Runs the command line in this process: its exit code, what it prints, and what it says on standard error.
Here = Callable[..., tuple[int, str, str]]


def edgekit(*arguments: str, python: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """The command line as a process of its own."""
    command = [sys.executable, *python, "-m", "edgekit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """The whole command line, errors and exit codes too, without a new process for every case."""
    before = signal.getsignal(signal.SIGTERM)  # which `main` sets

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgekit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help(here: Here, command: str) -> None:
    code, out, err = here(command, "--help")
    assert code == 0 and "usage" in out.lower(), err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgekit.cli\n"
        "try: edgekit.cli.group(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'grpc', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "unknown command 'trian': did you mean train"),
        (["export", "vgg12", "-o", "b"], 2, "unknown model 'vgg12': did you mean vgg1"),
        (["export", "vgg11", "--cut", "features.77", "-o", "b"], 2, "unknown layer 'features.77'"),
        (["export", "vgg11", "--codec", "sqg", "-o", "b"], 2, "unknown feature codec 'sqg': did you mean sgq"),
        (["export", "vgg11", "--dataset", "digit", "-o", "b"], 2, "unknown dataset 'digit': did you mean digits"),
        (["export", "vgg11", "--dataset", "cifar10", "-o", "b"], 2, "--data DIR"),
        (["export", "vgg11", "--input", "1,2", "-o", "b"], 2, "expected C,H,W"),
        (["train", "vgg11", "--devices", "0"], 2, "expected at least 1"),
        (["train", "vgg11", "--lr", "-1"], 2, "--lr -1.0: expected a number of 0 or more"),
        (
            ["train", "vgg11", "--gradient-codec", "stochastik"],
            2,
            "unknown gradient policy 'stochastik': did you mean stochastic",
        ),
        (["train", "vgg11", "--link", "10mb"], 2, "link '10mb': expected RATE"),
        (["train", "vgg11", "--augment", "flop"], 2, "unknown augmentation 'flop': did you mean flip"),
        (
            ["run", "b", "--server", "127.0.0.1:1", "--augment", "crop:0"],
            2,
            "augmentation 'crop:0': expected flip, crop:PIXELS",
        ),
        (["train", "vgg11", "--gradient-every", "4"], 2, "--gradient-every 4: in the other steps devices learn from"),
        (["train", "vgg11", "--local-loss", "-1"], 2, "--local-loss -1.0: expected a number of 0 or more"),
        (["train", "vgg11", "--local-loss", "0.5", "--no-local-head"], 2, "local head's: leave --no-local-head out"),
        (["train", "vgg11", "--schedule", "cosin"], 2, "unknown schedule 'cosin': did you mean cosine"),
        (["train", "vgg11", "--out", "/dev/null/x"], 2, "/dev/null/x cannot be a folder"),
        (["train", "vgg11", "--metrics", "0.0.0.0:9464"], 2, "--metrics 0.0.0.0:9464 leaves this machine"),
        (["train", "vgg11", "--overwrite"], 2, "--overwrite is of --out, which is not given"),
        (["run", "b", "--server", "x"], 2, "expected HOST:PORT"),
        (["inspect", "nowhere"], 5, "nowhere is no bundle"),
        (["serve", "nowhere"], 5, "nowhere is no bundle"),
        (["serve", "nowhere", "--metrics", "9464"], 2, "expected HOST:PORT"),
        (["run", "nowhere", "--server", "127.0.0.1:1"], 5, "nowhere is no bundle"),
        (["run", "b", "--server", "127.0.0.1:1", "--share", "2/2"], 2, "share '2/2': expected INDEX/COUNT"),
        (["run", "b", "--server", "127.0.0.1:1", "--share", ""], 2, "share '': expected INDEX/COUNT"),
        (["run", "b", "--server", "127.0.0.1:1", "--name", ""], 2, "device name '' of 0 characters: expected 1 to 64"),
        (["run", "b", "--server", "127.0.0.1:1", "--name", "a\tb"], 2, "device name 'a\\tb' of 3 characters"),
    ],
)
def test_wrong_input(
    here: Here, arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, _, err = here(*arguments)
    assert ended == code, err
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "unknown command 'trian': did you mean train"),
        (["export", "vgg12", "-o", "b"], 2, "unknown model 'vgg12': did you mean vgg1"),
        (["serve", "nowhere"], 5, "nowhere is no bundle"),
        (["check", "nowhere"], 5, "nowhere is no bundle"),
        (["measure", "vgg12"], 2, "unknown model 'vgg12': did you mean vgg1"),
    ],
)
def test_wrong_input_ends_the_process(arguments: list[str], code: int, message: str) -> None:
    """Before torch is imported, which takes seconds."""
    done = edgekit(*arguments, python=("-X", "importtime"))
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == code and "click" in imported and "torch" not in imported
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert message in " ".join(" ".join(said).split()) and "Traceback" not in done.stderr


def test_augmented_images_have_no_memory(here: Here, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, err = here("train", "vgg11", "--augment", "flip,crop:4", "--coding", "temporal", "--out", str(out))
    assert code == 2 and "take coding=context (--coding context" in " ".join(err.split())
    assert not out.exists()


def test_inspect(here: Here, small_bundle: Bundle) -> None:
    code, out, err = here("inspect", small_bundle.path)
    assert code == 0 and small_bundle.digest in out and "every hash is right" in out, err
    assert "10 classes" in out and "\nclasses " not in out  # it was exported without their names
    machine = json.loads(here("inspect", small_bundle.path, "--json")[1])
    assert machine["digest"] == small_bundle.digest and machine["codec"]["id"] == "sgq"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("dog cat", "classes  dog, cat\n"),
        ("a b c d e f g h i j k l", "classes  a, b, c, d, e, f, g, h, i, j and 2 more\n"),
    ],
)
def test_inspect_shows_the_first_classes(
    here: Here, small_bundle: Bundle, tmp_path: Path, names: str, line: str
) -> None:
    manifest = json.loads(json.dumps(small_bundle.manifest))
    manifest["model"].update(classes=len(names.split()), class_names=names.split())
    # Which is for as many classes as the network tells apart.
    del manifest["graphs"]["local"]
    files = {name: small_bundle.read(name) for name in manifest.pop("files")}
    code, out, err = here("inspect", write_bundle(str(tmp_path / "b"), manifest, files).path)
    assert code == 0 and line in out, err


def test_damaged_bundle_names_the_file(small_bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(small_bundle.path, tmp_path / "b")
    graph = tmp_path / "b" / "front.onnx"
    data = bytearray(graph.read_bytes())
    data[100] ^= 1
    graph.write_bytes(bytes(data))
    result = edgekit("inspect", str(tmp_path / "b"))
    assert result.returncode == 5 and "front.onnx: sha256" in result.stderr and "Traceback" not in result.stderr


def test_models(here: Here) -> None:
    models = json.loads(here("models", "--json")[1])
    assert len(models) == 11 and models["resnet18"]["cut"] == "layer2.1"
