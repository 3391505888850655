"""Devices that come late, leave early, come twice or share a name; and weights that do not depend on delays."""

import contextlib
import signal
import time
from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import parse_link
from tests.e2e.fleet import Fleet, fleet

SHORT = ("--limit", "400", "--batch", "16")


def run_of_four(bundle: Bundle, folder: Path, delays: list[str], order: list[int]) -> Fleet:
    """Four devices in sync mode, each behind a line of its own delay, started in `order`."""
    with fleet(bundle.path, folder, "--devices", "4") as made, contextlib.ExitStack() as stack:
        target = f"127.0.0.1:{made.port}"
        ports = [stack.enter_context(LinkEmulator(parse_link(delay), target)).port for delay in delays]
        devices = []
        for index in order:
            words = ("--share", f"{index}/4", "--epochs", "2", *SHORT)
            devices.append(made.device(f"board-{index}", *words, port=ports[index]))
            time.sleep(0.3)
        assert [device.end() for device in devices] == [0] * 4, [device.said for device in devices]
        assert made.server.end() == 0, made.server.said
    return made


@pytest.mark.slow
def test_delays_do_not_change_a_bit_of_the_weights(small_bundle: Bundle, tmp_path: Path) -> None:
    first = run_of_four(small_bundle, tmp_path / "a", ["1gbit"] * 4, [0, 1, 2, 3])
    delays = ["20mbit+5ms", "1gbit", "5mbit+40ms", "100mbit+15ms"]
    second = run_of_four(small_bundle, tmp_path / "b", delays, [3, 1, 2, 0])
    for name in ("server", *(f"board-{index}" for index in range(4))):
        assert first.digests(name) == second.digests(name) and len(first.digests(name)) >= 2, name
    assert first.digests("server")["front.safetensors"] == first.digests("board-0")["front.safetensors"]
    assert all(made.server.last("ended")["repeatable"] for made in (first, second))


@pytest.mark.parametrize("down", [(), ("--update-codec-down", "fedavg")], ids=["two ways", "one way"])
def test_all_end_with_one_network_whatever_rounds_carry(
    small_bundle: Bundle, tmp_path: Path, down: tuple[str, ...]
) -> None:
    codec = ("--update-codec", "fsfl:feedback=true", *down)
    layers = ("--update-layers", "last:1", "--sync-every", "3")
    with fleet(small_bundle.path, tmp_path, "--devices", "2", *codec, *layers) as made:
        words = ("--epochs", "2", "--evaluate-every", "2", *SHORT)
        devices = [made.device(f"board-{index}", "--share", f"{index}/2", *words) for index in range(2)]
        assert [device.end() for device in devices] == [0, 0], [device.said for device in devices]
        assert made.server.end() == 0, made.server.said
    assert made.server.last("ended")["rounds"] > 2
    kept = [made.digests(name) for name in ("server", "board-0", "board-1")]
    for name in ("front.safetensors", "tables.safetensors"):
        assert len({digests[name] for digests in kept}) == 1, name


def test_one_comes_late_and_one_leaves_early(small_bundle: Bundle, tmp_path: Path) -> None:
    with fleet(small_bundle.path, tmp_path) as made:
        # Long enough for a process to start meanwhile, however busy the machine is.
        words = (*SHORT, "--epochs", "60")
        stays = made.device("stays", "--share", "0/3", *words)
        leaves = made.device("leaves", "--share", "1/3", *words)
        leaves.wait_for("epoch")
        stays.wait_for("epoch")
        leaves.process.send_signal(signal.SIGKILL)
        late = made.device("late", "--share", "2/3", *words)
        begun = late.wait_for("connected")["epoch"]
        assert begun > 0, "it goes on where the run is"
        assert [stays.end(), late.end()] == [0, 0], (stays.said, late.said)
        # The network that both ended with is one, and the run came to its end for both.
        assert made.digests("stays") == made.digests("late")
        assert stays.last("done")["epoch"] == late.last("done")["epoch"] == 60
        assert late.last("done")["images"] < stays.last("done")["images"]
        left = made.server.wait_for("left", device="leaves")
        assert not left["finished"]


def test_a_device_that_runs_twice_ends_nobody_else(small_bundle: Bundle, tmp_path: Path) -> None:
    with fleet(small_bundle.path, tmp_path, "--devices", "2") as made:
        long = made.device("long", "--share", "0/2", "--epochs", "30", *SHORT)
        again = [made.device("again", "--share", "1/2", "--epochs", "2", *SHORT)]
        assert again[0].end() == 0, again[0].said
        again.append(made.device("again", "--share", "1/2", "--epochs", "2", "--overwrite", *SHORT))
        assert again[1].end() == 0, again[1].said
        assert made.server.process.poll() is None, "two goodbyes of one device are not two devices"
        assert long.end() == 0, long.said
        assert long.last("done")["epoch"] == 30
        assert made.server.end() == 0


def test_of_two_with_one_name_the_second_is_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    with fleet(small_bundle.path, tmp_path) as made:
        first = made.device("twin", "--share", "0/2", "--epochs", "8", *SHORT)
        first.wait_for("epoch")
        second = made.device("twin", "--share", "1/2", "--epochs", "1", "--overwrite", *SHORT)
        assert second.end() == 10
        assert any("a device named twin is in training" in line for line in second.said), second.said
        assert first.end() == 0, first.said
        # The second wrote nothing into the folder that both were given.
        kept = made.digests("twin")
        assert kept["front.safetensors"] == made.digests("server")["front.safetensors"]
        # When the first is gone its place is free.
        third = made.device("twin", "--share", "0/2", "--epochs", "1", "--overwrite", *SHORT)
        assert third.end() == 0, third.said


def test_what_a_killed_run_kept_stays(small_bundle: Bundle, tmp_path: Path) -> None:
    with fleet(small_bundle.path, tmp_path) as made:
        device = made.device("killed", "--epochs", "2000", *SHORT)
        device.wait_for("epoch")
        for process in (made.server, device):
            process.process.kill()
            process.end()
        kept = {name: made.digests(name) for name in ("server", "killed")}
        assert {name: sorted(files) for name, files in kept.items()} == {
            "server": ["back.safetensors", "front.safetensors", "tables.safetensors"],
            "killed": ["front.safetensors", "tables.safetensors"],
        }  # fmt: skip
        out = str(tmp_path / "server")
        again = made.start("serve", "--listen", "127.0.0.1:0", "--out", out), made.device("killed", *SHORT)
        for process in again:
            assert process.end() == 2 and any("holds the halves of an earlier run" in line for line in process.said)
        assert {name: made.digests(name) for name in kept} == kept
