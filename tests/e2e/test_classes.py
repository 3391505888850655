"""Devices whose image folders hold other classes: real `edgekit serve` and `edgekit run` over tiny PNGs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit.bundle import Bundle
from edgekit.data import registry
from edgekit.runtime.front import normalise
from edgekit.tensorfile import loads as load

Image = pytest.importorskip("PIL.Image")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
#: The brightness of each class: one that a small network learns in a few steps.
BRIGHTNESS = {"cat": 40, "dog": 130, "owl": 220, "howl": 220}
PETS = ("cat", "dog", "owl")


def folders(root: Path, *classes: str, images: int = 16) -> str:
    """Image folders of `classes`, with noise in every image."""
    rng = np.random.default_rng(0)
    for part, count in (("train", images), ("test", 4)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(BRIGHTNESS[name] + rng.normal(0, 10, (8, 8)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return str(root)


def network() -> nn.Sequential:
    """8x8 grey image -> 3 classes; cut at "1"."""
    pool = nn.AvgPool2d(2)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8 * 16, 3))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network for cats, dogs and owls."""
    folder = tmp_path_factory.mktemp("pets")
    torch.manual_seed(0)
    dataset = registry.load("folder", folders(folder / "images", *PETS))
    return edgekit.export_bundle(network(), str(folder / "bundle"), cut="1", data=dataset, codec="uniform:bits=8")


def start(*words: str, module: str = "edgekit.runtime") -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", module, *words, "--json"]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


@pytest.fixture
def server(bundle: Bundle, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`edgekit serve` for two devices."""
    words = ("--listen", "127.0.0.1:0", "--devices", "2", "--lr", "0.05", "--out", str(tmp_path / "server"))
    process = start("serve", bundle.path, *words, module="edgekit")
    yield process
    process.terminate()
    process.communicate(timeout=300)


def listening(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    return f"127.0.0.1:{json.loads(server.stdout.readline())['port']}"


def device(bundle: Bundle, address: str, data: str, out: Path) -> "subprocess.Popen[str]":
    words = ("--dataset", "folder", "--data", data, "--epochs", "15", "--batch", "8", "--out", str(out))
    return start(bundle.path, "--server", address, "--name", out.name, *words)


def seen(bundle: Bundle, front: Path, back: Path, images: np.ndarray) -> list[str]:
    """What the trained halves in two folders take `images` (n,1,8,8) uint8 for, by the bundle's names."""
    halves = (front / "front.safetensors", back / "back.safetensors")
    model = network()
    model.load_state_dict({k: torch.from_numpy(v) for half in halves for k, v in load(half.read_bytes()).items()})
    with torch.no_grad():
        scores = model(torch.from_numpy(normalise(images, bundle.mean, bundle.std)))
    return [bundle.class_names[place] for place in scores.argmax(1)]


def test_devices_with_other_classes_train_together(
    bundle: Bundle, server: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    assert bundle.class_names == PETS
    address = listening(server)
    # The second device numbers its own folders 0 and 1; the bundle says 1 and 2.
    data = {"attic": folders(tmp_path / "a", *PETS), "barn": folders(tmp_path / "b", "owl", "dog")}
    devices = [device(bundle, address, folder, tmp_path / name) for name, folder in data.items()]
    done = []
    for process in devices:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        done.append(json.loads(out.splitlines()[-1]))
    assert [(event["event"], event["device"]) for event in done] == [("done", "attic"), ("done", "barn")]
    assert [event["images"] for event in done] == [15 * 48, 15 * 32]
    assert all(event["accuracy"] > 90 for event in done), done
    _, err = server.communicate(timeout=300)
    assert server.returncode == 0, err
    # Both mean the same by the same label, not each its own.
    for name, folder in data.items():
        own = registry.load("folder", folder)
        expected = [own.classes[label] for label in own.test_labels]
        assert seen(bundle, tmp_path / name, tmp_path / "server", own.test_images) == expected


def test_a_class_that_the_bundle_lacks_ends_the_device(bundle: Bundle, tmp_path: Path) -> None:
    process = device(bundle, "127.0.0.1:1", folders(tmp_path / "c", "dog", "howl"), tmp_path / "cellar")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 6 and not out
    said = " ".join(err.split())
    assert "c: class 'howl' (did you mean owl?): the bundle has no such class, but cat, dog, owl" in said
    assert "Rename it" in said and "Traceback" not in err
