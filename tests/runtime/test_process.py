"""What the device process hands to its session: a name, and labels by the bundle's names."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle, write_bundle
from edgekit.errors import DataError, TransportError, UsageError
from edgekit.line.meter import Meter
from edgekit.runtime import __main__ as process
from tests.runtime.loopback import coded_by

NAMES = ("bat", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay", "owl")


class Session:
    """A stand-in for `Device` and for the line: keeps what it was given, and trains nothing."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.meter = Meter()

    def device(self, front: Any, transport: Any, options: Any, show: Any, classes: Any) -> "Session":
        self.given.update(
            name=options.name, augment=options.augment, overwrite=options.overwrite, classes=list(classes)
        )
        return self

    def train(self, train: Any, test: Any, validation: Any) -> None:
        self.given.update(train=train, test=test, validation=validation)

    def grpc(self, address: str, meter: Any, *arguments: Any) -> "Session":
        self.meter = meter
        return self

    def close(self) -> None:
        pass


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the session gets."""
    session = Session({})
    monkeypatch.setattr(process, "Device", session.device)
    monkeypatch.setattr(process, "Grpc", session.grpc)
    return session.given


@pytest.fixture
def named_bundle(small_bundle: Bundle, tmp_path: Path) -> str:
    """SmallNet for the classes of NAMES."""
    manifest = json.loads(json.dumps(small_bundle.manifest))
    manifest["model"]["class_names"] = list(NAMES)
    files = {name: small_bundle.read(name) for name in manifest.pop("files")}
    return write_bundle(str(tmp_path / "named"), manifest, files).path


def folders(root: Path, train: str, test: str) -> list[str]:
    """Image folders whose pixels are the places of their classes in NAMES; the options that read them."""
    image = pytest.importorskip("PIL.Image")
    for part, names in (("train", train), ("test", test)):
        for name in names.split():
            (root / part / name).mkdir(parents=True)
            pixel = NAMES.index(name) if name in NAMES else 200
            image.new("L", (16, 16), pixel).save(root / part / name / "0.png")
    return ["--dataset", "folder", "--data", str(root)]


def run(bundle: str, *words: str) -> None:
    process.run(process.parser("").parse_args([bundle, "--server", "127.0.0.1:1", *words]))


def places(images: Any) -> list[int]:
    """The first pixel of each of `images`."""
    return [int(pixel) for pixel in np.asarray(images.images)[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("train", "test"), [("dog owl", "dog owl"), ("cat dog owl", "owl"), ("owl", "bat cat owl"), ("jay ibex", "fox")]
)
def test_labels_are_found_by_name(
    given: dict[str, Any], named_bundle: str, tmp_path: Path, train: str, test: str
) -> None:
    run(named_bundle, *folders(tmp_path, train, test))
    for part in ("train", "test"):
        assert places(given[part]) == given[part].labels.tolist()
    assert {NAMES[label] for label in given["train"].labels} == set(train.split())
    assert sorted(given["classes"]) == sorted(train.split()), "what hello says"


def test_a_class_of_ones_own_is_refused(given: dict[str, Any], named_bundle: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class 'dogs' \(did you mean dog\?\)"):
        run(named_bundle, *folders(tmp_path, "cat dogs", "cat"))
    assert "train" not in given


def test_digits_are_no_animals(given: dict[str, Any], named_bundle: str) -> None:
    with pytest.raises(DataError, match="digits: class '0', class '1'"):
        run(named_bundle)


def test_without_names_the_number_counts(given: dict[str, Any], small_bundle: Bundle, tmp_path: Path) -> None:
    run(small_bundle.path, *folders(tmp_path / "ten", " ".join(NAMES), "owl"))
    assert given["test"].labels.tolist() == [9]
    with pytest.raises(UsageError, match="folder has 2 classes, the bundle was exported for 10"):
        run(small_bundle.path, *folders(tmp_path / "two", "dog owl", "owl"))


def test_augmentation_is_handed_on(given: dict[str, Any], small_bundle: Bundle) -> None:
    run(small_bundle.path, "--limit", "64", "--augment", "flip,crop:4")
    assert given["augment"] == "flip,crop:4"


def test_measuring_training_augments_too(
    given: dict[str, Any], small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "measure_training", lambda device, *_: given.update(measured=True))
    run(small_bundle.path, "--limit", "64", "--augment", "flip", "--measure", "1")
    assert given["augment"] == "flip" and given["measured"]


def test_without_a_server_nothing_is_augmented(small_bundle: Bundle) -> None:
    words = [small_bundle.path, "--measure", "1", "--dataset", "golden"]
    with pytest.raises(UsageError, match=r"--augment flip: .* without --server nothing is trained"):
        process.run(process.parser("").parse_args([*words, "--augment", "flip"]))


@pytest.mark.parametrize(
    ("coding", "augment", "message"),
    [("temporal", "flip", "take coding=context"), ("context", "crop:16", "crop:16 of images of 16 x 16 pixels")],
)
def test_augmentation_that_cannot_be(
    given: dict[str, Any], small_bundle: Bundle, tmp_path: Path, coding: str, augment: str, message: str
) -> None:
    bundle = coded_by(coding, small_bundle, tmp_path)
    with pytest.raises(UsageError, match=message):
        run(bundle.path, "--augment", augment, "--out", str(tmp_path / "out"))
    assert not given and not (tmp_path / "out").exists()


def test_what_was_kept_is_seen_before_anything_is_read(
    given: dict[str, Any], small_bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "best").mkdir(parents=True)
    (out / "best" / "front.safetensors").write_bytes(b"kept")
    with pytest.raises(UsageError, match=r"earlier run \(best/front.safetensors\)"):
        run("no bundle", "--out", str(out))
    run(small_bundle.path, "--limit", "64", "--out", str(out), "--overwrite")
    assert given["overwrite"] and (out / "best" / "front.safetensors").read_bytes() == b"kept"
    with pytest.raises(UsageError, match="--overwrite is of --out"):
        run(small_bundle.path, "--overwrite")
    with pytest.raises(UsageError, match="--measure keeps nothing"):
        run(small_bundle.path, "--out", str(tmp_path / "new"), "--measure", "1")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "the-board"),
        (("--share", "0/1"), "device-0"),
        (("--share", "1/4"), "device-1"),
        (("--share", "1/4", "--name", "left camera"), "left camera"),
        (("--name", "left camera"), "left camera"),
    ],
)
def test_the_name(
    given: dict[str, Any], small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "the-board")
    run(small_bundle.path, "--limit", "64", *words)
    assert given["name"] == name


def test_a_name_is_checked_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="device name ' x' of 2 characters"):
        run("nowhere", "--name", " x")
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    with pytest.raises(UsageError, match=r"device name '' of 0 characters.* --name"):
        run("nowhere")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--server", "http://127.0.0.1:1"), "leave http:// out"),
        (("--server", "127.0.0.1"), "add the port"),
        (("--wait", "-1"), "--wait -1.0: expected seconds, 0 or more"),
        (("--wait", "inf"), "--wait inf: expected seconds"),
        (("--timeout", "nan"), "--timeout nan: expected seconds"),
    ],
)
def test_the_line_is_checked_before_the_bundle(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run("nowhere", *words)


def test_an_unknown_host_is_told_before_the_bundle_is_opened() -> None:
    with pytest.raises(TransportError, match=r"the host no-such-host\.invalid is unknown here"):
        run("nowhere", "--server", "no-such-host.invalid:1", "--insecure")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--server", "nano:1"], r"--server nano:1 leaves this machine.*--identity DIR; or --insecure"),
        (["--identity", "me", "--insecure"], "--identity and --insecure: expected one of them"),
    ],
)
def test_a_line_in_the_clear_is_asked_for(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run("nowhere", *words)


def test_an_identity_needs_somebody_to_show_it_to() -> None:
    with pytest.raises(UsageError, match="--identity without --server"):
        process.run(process.parser("").parse_args(["nowhere", "--measure", "1", "--identity", "me"]))
