import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit
from edgekit.errors import IdentityError, UsageError
from edgekit.identity.certificates import load_request
from edgekit.runtime.identity import folder
from edgekit.runtime.identity.folder import open_identity
from edgekit.runtime.identity.openssl import Verdict
from tests.enrolled import Enrolled


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    return Enrolled(tmp_path_factory.mktemp("enrolled"))


NAMES = ["nano", "Gärtner + Söhne/1=2, x", "a\\b", "CN=x", '\'; rm -rf "$HOME"', "#1", "x" * 64, "机器"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_comes_through_request_and_certificate(enrolled: Enrolled, name: str) -> None:
    device = enrolled.device(name)
    identity = open_identity(str(device))
    assert identity.name == name
    assert load_request((device / "device.csr").read_bytes(), "")[0] == name


def test_the_key_is_for_its_owner_alone_and_goes_nowhere_else(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        path = folder.request(str(tmp_path / "me"), "nano")
    finally:
        os.umask(before)
    key = tmp_path / "me" / folder.KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    body = key.read_text().splitlines()[1]
    assert body not in Path(path).read_text()
    assert sorted(file.name for file in key.parent.iterdir()) == ["device.csr", "device.key"]


def test_a_request_again_keeps_the_key(tmp_path: Path) -> None:
    folder.request(str(tmp_path), "nano")
    before = (tmp_path / folder.KEY).read_bytes()
    folder.request(str(tmp_path), "other")
    assert (tmp_path / folder.KEY).read_bytes() == before
    assert load_request((tmp_path / folder.REQUEST).read_bytes(), "")[0] == "other"


@pytest.mark.parametrize("name", ["", " a", "a\nb", "x" * 65, "ä" * 33])
def test_a_name_that_is_none_makes_no_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--name: device name"):
        folder.request(str(tmp_path / "me"), name)
    assert not (tmp_path / "me").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        folder.request(str(tmp_path / "file" / "me"), "nano")


def test_without_openssl_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IdentityError, match=r"openssl cannot be started .*apt-get install openssl"):
        folder.request(str(tmp_path / "me"), "nano")
    assert list((tmp_path / "me").iterdir()) == []


def test_each_step_that_is_missing_says_the_next(enrolled: Enrolled, tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"device\.key is missing: .* not enrolled; `edgekit enroll request"):
        open_identity(str(tmp_path))
    device = enrolled.device("steps")
    for name in ("device.key", "device.csr"):
        shutil.copy(device / name, tmp_path)
    for name in ("device.pem", "ca.pem"):
        with pytest.raises(IdentityError, match=rf"{name} is missing: have .*device\.csr signed.*enroll sign"):
            open_identity(str(tmp_path))
        shutil.copy(device / name, tmp_path)
    assert open_identity(str(tmp_path)).name == "steps"
    (tmp_path / "device.key").chmod(0o644)
    with pytest.raises(IdentityError, match="can be read by others: chmod 600"):
        open_identity(str(tmp_path))


def test_what_does_not_hold_says_why(enrolled: Enrolled, tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"device\.pem: certificate has expired; have .*device\.csr signed again"):
        open_identity(str(enrolled.device("old", days=-0.5)))
    (tmp_path / "another").mkdir()
    other, device = Enrolled(tmp_path / "another"), enrolled.device("mixed")
    shutil.copy(Path(other.folder) / "ca.pem", device)
    with pytest.raises(
        IdentityError, match=r"unable to get local issuer certificate; bring device.pem and ca.pem of one"
    ):
        open_identity(str(device))
    (device / "device.pem").write_text("nothing")
    with pytest.raises(IdentityError, match="openssl failed; it said"):
        open_identity(str(device))


def test_a_clock_that_is_behind_is_named(enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict(folder.NOT_YET, "certificate is not yet valid")
    monkeypatch.setattr(folder, "judge", lambda *_: verdict)
    with pytest.raises(IdentityError, match=r"not yet valid; is this device's clock right\?"):
        open_identity(str(enrolled.device("early")))


def test_an_identity_shows_no_key(enrolled: Enrolled) -> None:
    identity = enrolled.identity("silent")
    assert "PRIVATE" in identity.read()[1].decode()
    assert "PRIVATE" not in repr(identity) and "PRIVATE" not in repr(vars(identity))


def test_the_device_part_alone_does_it(tmp_path: Path) -> None:
    """`python -m edgekit.runtime.enroll` imports nothing but the standard library."""
    command = [sys.executable, "-S", "-m", "edgekit.runtime.enroll", "--name", "six", "-o", str(tmp_path / "me")]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(edgekit.__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/me/device.csr\n"), done.stderr
    assert "edgekit enroll sign" in done.stderr
    done = subprocess.run([*command, "--name", ""], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2 and "--name: device name" in done.stderr
