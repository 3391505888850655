"""A user's own network with real processes: a module of theirs, its weights, `edgekit export` and `edgekit train`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import edgekit
from edgekit.bundle import open_bundle
from tests.one_process import Done, run_together

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(edgekit.__file__).parent.parent), "OMP_NUM_THREADS": "1"}

MYNET = '''
import torch
from torch import nn


class SE(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.SiLU(), nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.fc(x.mean((2, 3), keepdim=True))


class Block(nn.Module):
    """A depthwise and a plain branch, concatenated, weighed, and added to the input."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.plain = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)
        self.act = nn.SiLU()
        self.se = SE(2 * channels)
        self.project = nn.Sequential(nn.Conv2d(2 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = torch.cat([self.depthwise(x), self.plain(x)], dim=1)
        return x + self.project(self.se(self.act(self.bn(y))))


class MyNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.front = Block(16)
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.SiLU())
        self.back = Block(32)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, classes)

    def forward(self, x):
        x = self.back(self.down(self.front(self.stem(x))))
        return self.fc(torch.flatten(self.pool(x), 1))


def make():
    return MyNet()
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder: mynet.py and w.safetensors."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "mynet.py").write_text(MYNET)
    spec = importlib.util.spec_from_file_location("mynet", folder / "mynet.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(7)
    safetensors.torch.save_file(module.make().state_dict(), folder / "w.safetensors")
    return folder


def command(name: str, *arguments: str) -> list[str]:
    """`edgekit NAME mynet:make` for 16x16 digits, with its result as JSON."""
    model = ["mynet:make", "--weights", "w.safetensors", "--input", "1,16,16", "--dataset", "digits", "--cut", "front"]
    return ["-m", "edgekit", name, *model, "--groups", "4", "--json", *arguments]


def edgekit_command(project: Path, name: str, *arguments: str) -> Any:
    """What the command prints, run in the user's folder."""
    process = subprocess.run(
        [sys.executable, *command(name, *arguments)], capture_output=True, text=True, cwd=project, env=ENVIRONMENT,
        timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


DEVICES = ("cpu", "jetson-nano", "atlas-200-dk")


@pytest.fixture(scope="module")
def exported(project: Path) -> dict[str, Done]:
    """How the export for each of DEVICES ended, run in the user's folder."""
    commands = [command("export", "--device", device, "--norm", "batch", "-o", device) for device in DEVICES]
    return dict(zip(DEVICES, run_together(commands, project), strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_export(project: Path, exported: dict[str, Done], device: str) -> None:
    done = exported[device]
    assert done.code == 0, done.err
    said = json.loads(done.out)
    bundle = open_bundle(str(project / device))
    assert said["digest"] == bundle.digest and said["feature"] == [16, 8, 8]
    assert (bundle.model, bundle.cut, bundle.device["name"]) == ("mynet:make", "front", device)
    saved = safetensors.torch.load_file(project / "w.safetensors")
    front, back = bundle.arrays("front.safetensors"), bundle.arrays("back.safetensors")
    assert {"stem.0.weight", "front.se.fc.2.bias", "front.bn.running_var"} <= front.keys()
    assert {"down.0.weight", "fc.weight"} <= back.keys()
    for name, value in {**front, **back}.items():
        np.testing.assert_array_equal(value, saved[name].numpy(), err_msg=name)


# The boards' own norm policies: statistics of the batch, and folded.
@pytest.mark.parametrize(("device", "norm"), [("cpu", "batch"), ("jetson-nano", "frozen")])
def test_train(project: Path, device: str, norm: str) -> None:
    size = ["--limit", "768", "--epochs", "5", "--devices", "2"]
    summary = edgekit_command(project, "train", *size, "--device", device, "--norm", norm, "--out", f"trained-{device}")
    out = project / f"trained-{device}"
    events = [json.loads(line) for line in (out / "record.jsonl").read_text().splitlines()]
    assert open_bundle(str(out / "bundle")).norm == norm
    for name in ("device-0", "device-1"):
        losses = [event["loss"] for event in events if event["event"] == "epoch" and event["device"] == name]
        assert len(losses) == 5 and losses[-1] < 0.6 * losses[0], losses
    assert summary["model"] == "mynet:make" and summary["accuracy"] > 70
    if norm == "batch":
        edgekit_command(project, "export", "--weights", str(out), "-o", "again")
        again = open_bundle(str(project / "again"))
        for half, folder in (("front", "device-0"), ("back", "server")):
            trained = safetensors.torch.load_file(out / folder / f"{half}.safetensors")
            first = open_bundle(str(out / "bundle")).arrays(f"{half}.safetensors")
            got = again.arrays(f"{half}.safetensors")
            assert any(not np.array_equal(got[name], first[name]) for name in first)
            for name, value in trained.items():
                np.testing.assert_array_equal(got[name], value.numpy(), err_msg=name)
