"""edgekit and Flower, in Flower's own environment: tests of mod and strategy, a stock app, and `edgekit federate`.

`make flower` makes the environment; without it these are skipped. Each run of Flower takes half a minute to start.
"""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgekit import tensorfile
from edgekit.errors import ChildFailed, UsageError
from edgekit.federate.simulation import environment
from edgekit.federate.simulation.session import processes, session

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests/federate/flower"
TIMEOUT_S = 900


def programs() -> Path | None:
    try:
        return environment.find(None)
    except UsageError:
        return None


pytestmark = [
    pytest.mark.skipif(programs() is None, reason="no .venv-flower here: `make flower` makes it"),
    pytest.mark.timeout(2 * TIMEOUT_S),
]


def flower() -> Path:
    found = programs()
    assert found is not None
    return found


def test_mod_and_strategy() -> None:
    """The tests of edgekit/federate/flower, by pytest there."""
    options = ["-q", "-rs", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull, "--rootdir", str(ROOT)]
    done = subprocess.run(
        [str(flower() / "python"), "-m", "pytest", *options, "--import-mode=importlib", str(APPS)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout and "passed" in done.stdout


def test_a_stock_app_learns_as_well_for_fewer_bytes(tmp_path: Path) -> None:
    """Once as it is, once with mod and strategy, whose weights go as updates both ways."""
    app = tmp_path / "app"
    app.mkdir()
    for name in ("task.py", "client_app.py", "server_app.py"):
        (app / name).write_text((APPS / "stock" / name).read_text(encoding="utf-8"), encoding="utf-8")
    project = (APPS / "stock/pyproject.toml").read_text(encoding="utf-8")
    sklearn = find_spec("sklearn")
    assert sklearn is not None and sklearn.submodule_search_locations
    digits = str(Path(next(iter(sklearn.submodule_search_locations))) / "datasets/data")
    came: dict[str, dict[str, Any]] = {}
    with session(flower()) as started:
        for name, codec in (("app", "none"), ("packed", "quantised:step=0.5")):
            (app / "pyproject.toml").write_text(
                project.replace("client_app:app", f"client_app:{name}"), encoding="utf-8"
            )
            result = tmp_path / f"{name}.json"
            settings = {"codec": codec, "down": codec, "digits": digits, "result": str(result)}
            *_, last = started.run(app, {**settings, "rounds": 4}, clients=2, workers=2)
            assert result.exists(), last["reason"]
            came[name] = json.loads(result.read_text(encoding="utf-8"))
    plain, packed = came["app"], came["packed"]
    assert plain["accuracy"] > 85
    assert abs(plain["accuracy"] - packed["accuracy"]) < 2
    assert packed["steps"] == plain["steps"] == 4 * 45
    whole = 2 * packed["rounds"][0]["bytes_whole"]
    for row in packed["rounds"]:
        for what in ("train", "evaluate"):
            assert row[what]["clients"] == 2
            for way in ("up", "down"):
                assert row[what][f"bytes_{way}"] == row[what][f"bytes_{way}_of_clients"] > 0
        assert row["train"]["bytes_up"] < whole / 7
    # The first weights go whole; then what changed, once: with the evaluation.
    first, *later = packed["rounds"]
    assert first["train"]["bytes_down"] > whole
    for row in later:
        assert row["train"]["bytes_down"] + row["evaluate"]["bytes_down"] < whole / 6


def federate(*words: str, **more: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "edgekit", "federate", *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **more,
    )  # fmt: skip


SMALL = ("--limit", "64", "--clients", "2", "--batch", "16", "--local-epochs", "1")


def test_federate_trains_a_network(tmp_path: Path) -> None:
    """Two-way, with scales of filters, by one of Flower's other strategies."""
    out = tmp_path / "out"
    process = federate(
        "vgg11_thin", *SMALL, "--rounds", "2", "--update-codec", "quantised:step=0.5",
        "--down-codec", "quantised:step=0.5", "--scaling", "on", "--strategy", "fedavgm:momentum=0.5",
        "--out", str(out), "--json",
    )  # fmt: skip
    told, words = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, words
    summary = json.loads(told)
    events = [json.loads(line) for line in (out / "record.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["event"] for event in events] == ["start", "round", "round", "summary"]
    assert events[-1] == summary
    assert (
        summary["bytes_up"] == summary["bytes_up_of_clients"]
        and summary["bytes_down"] == summary["bytes_down_of_clients"]
    )
    assert summary["times_fewer_up"] > 6
    first, second = events[1:3]
    assert first["bytes_down"] > 2 * first["bytes_whole"] and second["bytes_down"] < second["bytes_whole"] / 3
    assert 0 < summary["accuracy"] <= 100 and summary["images_tested"] == 359
    network = tensorfile.loads((out / "network.safetensors").read_bytes())
    assert "classifier.weight" in network or any(name.endswith(".weight") for name in network)
    assert not any(name.endswith(":scale") for name in network), "scales are folded into weights"


def test_a_training_that_diverges_ends_with_its_own_error(tmp_path: Path) -> None:
    process = federate("vgg11_thin", *SMALL, "--rounds", "2", "--lr", "1e9", "--out", str(tmp_path / "out"))
    _, words = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 12, words
    assert "lower --lr" in words and "Traceback" not in words
    assert not (tmp_path / "out/network.safetensors").exists()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    process = federate("vgg11_thin", *SMALL, "--rounds", "50", "--out", str(tmp_path / "out"), start_new_session=True)
    record = tmp_path / "out/record.jsonl"
    until = time.monotonic() + TIMEOUT_S
    while not (record.exists() and '"event": "round"' in record.read_text(encoding="utf-8")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.5)
    homes = {home for home in Path("/tmp").glob("edgekit-flower-*") if processes(str(home))}
    assert homes
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130 and "Traceback" not in words, words
    mine = [home for home in homes if not home.exists()]
    assert mine and not any(processes(str(home)) for home in mine)


def test_an_app_that_fails_says_why(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text("[project]\nname = 'none'\n", encoding="utf-8")
    with pytest.raises(ChildFailed, match="version"), session(flower()) as started:
        list(started.run(app, {}, clients=1, workers=1))
