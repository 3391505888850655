"""What is refused before a board is spoken to, and a board that is known to its bundle alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.deploy.deployment import Deployment, Settings
from edgekit.deploy.local import local
from edgekit.deploy.ssh import Ssh
from edgekit.device_profiles import registry
from edgekit.errors import DeployError, EdgekitError, IdentityError, UsageError
from edgekit.export.build import build_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from tests.conftest import SmallNet


def prepared(folder: Path, bundle: str, device: str | None = None, host: str = "board", **settings: Any) -> Deployment:
    d = Deployment(Settings(bundle, device, host, **settings), Ssh(host), str(folder), lambda event: None)
    local(d)
    return d


def test_a_board_of_ones_own_needs_no_name(tmp_path: Path, digits: Dataset) -> None:
    assert registry.__file__
    own = tmp_path / "myboard.toml"
    text = (Path(registry.__file__).parent / "cpu.toml").read_text(encoding="utf-8")
    own.write_text(text.replace('name = "cpu"', 'name = "myboard"').replace('python = "3.6"', 'python = "3.8"'))
    torch.manual_seed(0)
    build_bundle(
        str(tmp_path / "bundle"),
        Network(SmallNet(), "small", "features"),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec("raw", {})),
        BoardSettings(str(own)),
    )
    for device in (None, str(own)):
        d = prepared(tmp_path, str(tmp_path / "bundle"), device)
        assert (d.profile.name, d.profile.python, d.options.backend) == ("myboard", "3.8", "onnxruntime")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"device": "jetson"}, DeployError, "was exported for cpu, --device jetson is jetson-orin-nano"),
        ({"server": "nano"}, UsageError, "expected HOST:PORT"),
        ({"server": "a:1"}, UsageError, "--server a:1 leaves this machine.*--identity DIR; or --insecure"),
        ({"server": "a:1", "identity": "nowhere"}, IdentityError, "nowhere/register.json cannot be read.*enroll init"),
        ({"arguments": ("--insecure",)}, UsageError, "--insecure after --: it is deploy's"),
        ({"arguments": ("--identity", "x")}, UsageError, "--identity after --: it is deploy's"),
        ({"environment": ("ä=1",)}, UsageError, "expected NAME=VALUE"),
        ({"environment": ("PATH",)}, UsageError, "expected NAME=VALUE"),
        ({"arguments": ("--epochs", "many")}, UsageError, "invalid int value"),
        ({"arguments": ("--augment", "flop")}, UsageError, "unknown augmentation 'flop': did you mean flip"),
        ({"arguments": ("--augment", "crop:16")}, UsageError, "crop:16 of images of 16 x 16 pixels"),
        ({"name": "a/b"}, UsageError, "letters, digits"),
        (
            {"host": f"me@{'n' * 61}.lan", "server": "a:1", "insecure": True},
            UsageError,
            r"--host me@n*\.lan: device name 'n*\.lan' of 65 characters.* -- --name NAME",
        ),
    ],
)
def test_refused(
    small_bundle: Bundle, tmp_path: Path, settings: dict[str, Any], error: type[EdgekitError], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepared(tmp_path, small_bundle.path, **settings)


def test_a_board_at_the_end_of_a_tunnel_is_asked_for_its_name(small_bundle: Bundle, tmp_path: Path) -> None:
    d = prepared(tmp_path, small_bundle.path, host="me@localhost", server="a:1", insecure=True)
    d.facts = SimpleNamespace(node="n" * 65)  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"--host me@localhost: device name .* of 65 characters.* -- --name NAME"):
        assert d.device_name


def test_a_host_that_is_no_name_is_taken_where_the_device_has_one(small_bundle: Bundle, tmp_path: Path) -> None:
    host = "n" * 65
    d = prepared(tmp_path, small_bundle.path, host=host, server="a:1", insecure=True, arguments=("--name", "left"))
    assert d.device_name == "left"
    prepared(tmp_path, small_bundle.path, host=host)  # nothing is started, so nothing needs a name
