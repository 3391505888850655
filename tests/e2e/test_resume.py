"""Runs of real processes that are killed, and go on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.report.records import Training, read
from tests.e2e.fleet import ENVIRONMENT, LIMIT_S, Fleet, Process, fleet

RUN = (
    "--limit", "320", "--batch", "16", "--epochs", "12", "--partition", "iid", "--reconnect", "60", "--resume",
)  # fmt: skip
SERVE = ("--devices", "2", "--checkpoint", "3steps", "--seed", "5", "--reconnect", "60")
NAMES = ("server", "d0", "d1")
Digests = dict[str, dict[str, str]]


def device(made: Fleet, index: int) -> Process:
    return made.device(f"d{index}", *RUN, "--share", f"{index}/2", "--seed", "5")


def again(made: Fleet) -> Process:
    """The server of `made`, started anew at its address."""
    made.server = Process(["-m", "edgekit", "serve", "--resume", str(made.folder / "server"), "--json",
                           "--listen", f"127.0.0.1:{made.port}"])  # fmt: skip
    made.processes.append(made.server)
    return made.server


def ended(made: Fleet, *devices: Process) -> Digests:
    """What all kept, when all have ended well."""
    assert [each.end() for each in (*devices, made.server)] == [0] * (1 + len(devices)), made.server.said
    return {name: made.digests(name) for name in NAMES}


@pytest.fixture(scope="module")
def sound(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Digests:
    with fleet(small_bundle.path, tmp_path_factory.mktemp("sound"), *SERVE) as made:
        return ended(made, device(made, 0), device(made, 1))


def test_a_device_is_killed_and_a_server_stopped(small_bundle: Bundle, tmp_path: Path, sound: Digests) -> None:
    with fleet(small_bundle.path, tmp_path, *SERVE) as made:
        first, second = device(made, 0), device(made, 1)
        made.server.wait_for("checkpoint", label=2)
        second.process.kill()
        second.end()
        second = device(made, 1)
        made.server.wait_for("went_back")
        # Tests that nohup started hand it on that SIGHUP is ignored, and the server keeps to that.
        hangs_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        for how in (signal.SIGTERM, signal.SIGHUP if hangs_up else signal.SIGTERM):
            made.server.wait_for("checkpoint")
            made.server.process.send_signal(how)
            assert made.server.end() == 130
            # It saved before it ended.
            label = made.server.last("checkpoint")["label"]
            assert again(made).wait_for("went_back")["label"] == label
        made.server.wait_for("checkpoint")
        made.server.process.kill()
        made.server.end()
        assert again(made).wait_for("went_back")["label"] > label
        assert ended(made, first, second) == sound


def test_all_are_killed_at_once(small_bundle: Bundle, tmp_path: Path, sound: Digests) -> None:
    with fleet(small_bundle.path, tmp_path, *SERVE) as made:
        devices = device(made, 0), device(made, 1)
        made.server.wait_for("checkpoint", label=3)
        for each in (made.server, *devices):
            each.process.kill()
            each.end()
        again(made).wait_for("listening")
        other = made.device("d0", *RUN, "--share", "0/2", "--seed", "5", "--augment", "crop:1")
        assert other.end() == 2 and any("had augment None, now it is crop:1" in line for line in other.said), other.said
        assert ended(made, device(made, 0), device(made, 1)) == sound
        # There is nothing more to do, and nothing is done.
        for each in (again(made), device(made, 0)):
            assert each.end() == 0, each.said
        assert {name: made.digests(name) for name in NAMES} == sound


def test_train_goes_on_with_all_its_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekit", "train", "vgg11_thin", "--limit", "320", "--epochs", "3", "--json"]
    with subprocess.Popen(
        [*command, "--checkpoint", "5steps", "--out", str(tmp_path)],
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as first:  # fmt: skip
        until = time.monotonic() + LIMIT_S
        while not list(tmp_path.glob("server/checkpoint/*[3-9].state")):
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
    # As a process that was killed while it wrote.
    with open(tmp_path / "record.jsonl", "a", encoding="utf-8") as file:
        file.write('{"event": "ep')
    again = subprocess.run(
        [*command[:4], "--resume", str(tmp_path), "--json"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert summary["images_by_device"] == {"device-0": 480, "device-1": 480}
    training = read(str(tmp_path / "record.jsonl"))
    assert isinstance(training, Training)
    assert sorted((row["device"], row["epoch"]) for row in training.epochs) == [
        (f"device-{index}", epoch) for index in range(2) for epoch in (1, 2, 3)
    ]
