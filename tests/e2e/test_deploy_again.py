"""A device process on a board that dies, has finished, or would overwrite what another kept; over a real sshd."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import parse_link
from tests.e2e.test_deploy import steps

LIMIT_S = 300
WORDS = ("--no-check", "--seconds", "0.2", "--json")
#: A training of a moment.
SHORT = ("--", "--epochs", "1", "--limit", "64", "--wait", "0")


@pytest.fixture(scope="module")
def address(small_bundle: Bundle) -> Iterator[str]:
    """The address of a real `edgekit serve`, at a slow line."""
    command = [sys.executable, "-m", "edgekit", "serve", small_bundle.path, "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["port"]
    with LinkEmulator(parse_link("2mbit"), f"127.0.0.1:{port}") as line:
        yield f"127.0.0.1:{line.port}"
    process.terminate()
    process.communicate(timeout=LIMIT_S)


def until(found: Callable[[], Any]) -> Any:
    """What `found` gives as soon as it is true."""
    end = time.monotonic() + LIMIT_S
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < end
        time.sleep(0.1)


def device_of(script: int) -> int:
    """The process id of the device process that the script started."""

    def child() -> int | None:
        with open(f"/proc/{script}/task/{script}/children", encoding="ascii") as file:
            for pid in map(int, file.read().split()):
                if b"edgekit.runtime" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    found: int = until(child)
    return found


def test_one_that_is_killed_is_started_again(board: Any, bundle: str, address: str) -> None:
    words = (bundle, "--target", "killed", "--server", address, *WORDS, "--", "--epochs", "2000", "--limit", "320")
    code, out, err = board.deploy(*words)
    assert code == 0, err + out
    script = int(next((board.home / "killed").glob("*.pid")).read_text())
    first = device_of(script)
    os.kill(first, signal.SIGKILL)
    log = next((board.home / "killed").glob("*.log"))
    until(lambda: '"restarts", "code": 137' in log.read_text())
    second = device_of(script)
    assert second != first
    until(lambda: '"connected"' in log.read_text().rpartition('"restarts"')[2])
    code, out, err = board.deploy(*words)
    assert code == 0 and "runs as asked for" in steps(out)["service"]["text"], err + out
    code, out, err = board.deploy("--target", "killed", "--stop")
    assert code == 0 and "exit code 130 (stopped on request)" in out, err + out
    assert not os.path.exists(f"/proc/{second}")


def test_one_that_finds_no_server_goes_on_trying(board: Any, bundle: str) -> None:
    words = (bundle, "--target", "alone", "--server", "127.0.0.1:1", *WORDS, "--timeout", "40", *SHORT, "--wait", "1")
    code, out, err = board.deploy(*words)
    assert code == 13 and "goes on trying" in err, err + out
    said = [json.loads(line) for line in out.splitlines()]
    (told, *_) = (event["text"] for event in said if event["event"] == "says" and event["step"] == "health")
    assert told.startswith("it ended with exit code 9, and is started again 5 s later; it said: error: ")
    code, out, err = board.deploy("--target", "alone", "--status")
    assert code == 0 and "it ended with exit code 9, and is started again" in out, err + out
    assert board.deploy("--target", "alone", "--stop")[0] == 0


def test_a_finished_run_is_not_started_again_unasked(board: Any, bundle: str, address: str) -> None:
    at = (bundle, "--target", "done", "--server", address, *WORDS)
    words = (*SHORT, "--out", "done-out")
    code, out, err = board.deploy(*at, *words)
    assert code == 0, err + out
    kept = board.home / "done-out" / "front.safetensors"
    until(lambda: next((board.home / "done").glob("*.exit"), None))
    written = kept.stat().st_mtime_ns

    code, out, err = board.deploy(*at, *words)
    assert code == 0, err + out
    service, health = steps(out)["service"], steps(out)["health"]
    assert service["state"] == health["state"] == "nothing to do" and "it has finished (epoch 1 of 1" in service["text"]
    assert kept.stat().st_mtime_ns == written

    # Another training into the same folder, by another name too.
    for more in ((), ("--name", "another")):
        code, out, err = board.deploy(*at, *more, *words, "--seed", "7")
        assert code == 13 and "--out done-out there holds the halves of an earlier run" in err, err + out
        assert "done-out/front.safetensors" in err and "choose another folder, --resume (after the --) to go on" in err
    assert kept.stat().st_mtime_ns == written

    code, out, err = board.deploy(*at, "--overwrite", *words)
    assert code == 0 and steps(out)["service"]["state"] == "done", err + out
    until(lambda: kept.stat().st_mtime_ns > written)


def test_the_process_itself_does_nothing_again(board: Any, bundle: str, address: str) -> None:
    """Where the folder is filled between the look at it and the start: here the script is started by hand."""
    at = (bundle, "--target", "late", "--server", address, *WORDS, *SHORT, "--out", "late-out")
    assert board.deploy(*at)[0] == 0
    folder = board.home / "late"
    until(lambda: next(folder.glob("*.exit"), None))
    (script,) = folder.glob("*.sh")
    environment = {**os.environ, "HOME": str(board.home)}
    kept = board.home / "late-out" / "front.safetensors"
    written = kept.stat().st_mtime_ns
    again = subprocess.run(["sh", str(script)], env=environment, timeout=LIMIT_S, check=False)
    said = [json.loads(line)["event"] for line in script.with_suffix(".log").read_text().splitlines()]
    assert again.returncode == 0 and said == ["done"] and kept.stat().st_mtime_ns == written
    # Another run is not this one to go on with.
    script.write_text(script.read_text().replace("--epochs 1", "--epochs 2"))
    again = subprocess.run(["sh", str(script)], env=environment, timeout=LIMIT_S, check=False)
    assert again.returncode == 2 and "had epochs 1, now it is 2" in script.with_suffix(".log").read_text()
    assert kept.stat().st_mtime_ns == written
