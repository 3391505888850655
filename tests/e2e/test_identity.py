"""Real servers and devices with TLS: one that belongs there trains, and everyone else is refused and told why."""

import contextlib
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.bundle import Bundle
from edgekit.errors import IdentityError
from edgekit.runtime.identity.folder import Identity
from edgekit.runtime.identity.look import look
from tests.enrolled import Enrolled

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(Path(edgekit.__file__).parent.parent), OMP_NUM_THREADS="1")
REFUSED, USAGE, BUNDLE, IDENTITY = 10, 2, 5, 16


def start(*words: str, module: str = "edgekit") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip


class Server:
    """`edgekit serve` on a free port of every address; keeps its events."""

    def __init__(self, bundle: str, *words: str) -> None:
        self.process = start("serve", bundle, "--listen", "0.0.0.0:0", "--json", *words)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = self.events.get(timeout=300)["port"]
        self.address = f"127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.events.put(json.loads(line))

    def hear(self, *words: str) -> None:
        """Waits until the server tells that it refused somebody, in these words."""
        while True:
            event = self.events.get(timeout=300)
            if event["event"] == "refused" and all(word in str(event) for word in words):
                return

    def end(self) -> str:
        self.process.terminate()
        assert self.process.stderr is not None
        with self.process.stderr as words:
            err = words.read()
        assert self.process.wait(300) == 130, err
        self._reader.join(300)
        return err


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    return Enrolled(tmp_path_factory.mktemp("enrolled"))


@pytest.fixture(scope="module")
def server(small_bundle: Bundle, enrolled: Enrolled) -> Iterator[Server]:
    made = Server(small_bundle.path, "--identity", enrolled.folder)
    yield made
    assert made.end().strip() == "stopped"  # no word of gRPC's, no traceback, no key


def device(bundle: str, address: str, *words: str) -> "subprocess.Popen[str]":
    return start(bundle, "--server", address, "--json", *words, module="edgekit.runtime")


def ended(process: "subprocess.Popen[str]", code: int, *words: str) -> None:
    """Waits for the end of a device, with this exit code and one line that has these words."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err + out
    assert err.startswith("error: ") and all(word in err for word in words), err
    assert err.count("\n") == 1 and "PRIVATE" not in out + err


def until_connected(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    while '"connected"' not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]


def test_an_enrolled_device_trains_under_its_certificate_s_name(
    small_bundle: Bundle, server: Server, enrolled: Enrolled
) -> None:
    folder = str(enrolled.device("nano"))
    words = ("--identity", folder, "--epochs", "1", "--limit", "128")
    out, err = (process := device(small_bundle.path, server.address, *words)).communicate(timeout=300)
    assert process.returncode == 0, err
    last = json.loads(out.splitlines()[-1])
    assert last["event"] == "done" and last["device"] == "nano"
    doctor = start(small_bundle.path, "--server", server.address, "--identity", folder, module="edgekit.runtime.doctor")
    out, err = doctor.communicate(timeout=300)
    assert f"{server.address} answers in" in out, out + err


def test_two_of_one_name_and_revoked_while_connected(small_bundle: Bundle, server: Server, enrolled: Enrolled) -> None:
    words = ("--identity", str(enrolled.device("twin")), "--limit", "128")
    older = device(small_bundle.path, server.address, *words, "--epochs", "100000")
    until_connected(older)
    newer = device(small_bundle.path, server.address, *words, "--epochs", "1")
    ended(newer, REFUSED, "a device named twin is in training", "--name")
    revoked = start("enroll", "revoke", enrolled.folder, "twin")
    assert revoked.communicate(timeout=300)[0] == "1 certificate of twin revoked\n"
    ended(older, IDENTITY, "the server refused: the certificate of twin was revoked", "new key")
    server.hear("twin", "was revoked")
    ended(device(small_bundle.path, server.address, *words), IDENTITY, "the certificate of twin was revoked")


def test_refused_before_anything_is_loaded(
    small_bundle: Bundle, server: Server, enrolled: Enrolled, tmp_path: Path
) -> None:
    (tmp_path / "another").mkdir()
    stranger = str(Enrolled(tmp_path / "another").device("stranger"))
    mine = str(enrolled.device("mine"))
    tampered = tmp_path / "tampered"
    shutil.copytree(small_bundle.path, tampered)
    graph = (tampered / "front.onnx").read_bytes() + b"\0"
    (tampered / "front.onnx").write_bytes(graph)
    manifest = json.loads((tampered / "manifest.json").read_text())
    manifest["files"]["front.onnx"] = {"sha256": hashlib.sha256(graph).hexdigest(), "bytes": len(graph)}
    (tampered / "manifest.json").write_text(json.dumps(manifest))
    cases = [
        ((), IDENTITY, ("takes enrolled devices alone, over TLS", "edgekit enroll request"), server.address),
        (("--identity", stranger), IDENTITY, ("cannot be trusted", "enrolled by another"), server.address),
        (("--identity", mine), IDENTITY, ("mismatch", "--host 127.0.0.2"), f"127.0.0.2:{server.port}"),
        (("--identity", mine, "--name", "other"), USAGE, ("--name other", "is of mine"), server.address),
        (("--identity", str(enrolled.device("old", days=-0.5))), IDENTITY, ("has expired", "signed"), server.address),
        (("--identity", str(tmp_path)), IDENTITY, ("not enrolled", "edgekit enroll request"), server.address),
    ]
    for words, code, told, address in cases:
        ended(device(small_bundle.path, address, *words), code, *told)
    ended(device(str(tampered), server.address, "--identity", mine), BUNDLE, "it was changed", "Transfer")
    server.hear("spoke no TLS")


def test_the_server_s_log_has_the_reason_of_a_handshake_that_failed(
    server: Server, enrolled: Enrolled, tmp_path: Path
) -> None:
    """Devices of ours see it coming and do not try; here they try."""
    (tmp_path / "another").mkdir()
    stranger = Enrolled(tmp_path / "another").device("stranger")
    shutil.copy(Path(enrolled.folder) / "ca.pem", stranger)
    for folder, told in ((stranger, "unable to get local issuer"), (enrolled.device("late", days=-0.5), "has expired")):
        with pytest.raises(IdentityError, match="turns the certificate of x away"):
            look(server.address, Identity(str(folder), "x"))
        server.hear("a handshake failed", told)


def test_a_server_without_tls_is_not_trusted_by_a_device_that_is_enrolled(
    small_bundle: Bundle, enrolled: Enrolled
) -> None:
    plain = Server(small_bundle.path, "--insecure")
    with contextlib.ExitStack() as stack:
        stack.callback(plain.end)
        process = device(small_bundle.path, plain.address, "--identity", str(enrolled.device("sure")))
        ended(process, IDENTITY, "speaks no TLS", "edgekit serve --identity")


@pytest.mark.parametrize(
    "words", [("serve", "--listen", "0.0.0.0:0"), ("run", "--server", "10.0.0.2:50051")], ids=["serve", "run"]
)
def test_a_line_to_other_machines_is_not_in_the_clear_unasked(small_bundle: Bundle, words: tuple[str, ...]) -> None:
    process = start(words[0], small_bundle.path, *words[1:])
    ended(process, USAGE, "leaves this machine", "edgekit enroll", "--identity DIR", "--insecure")
