"""Flower's processes are found by their home, and none is left behind."""

import subprocess
import sys
import time
from pathlib import Path

from edgekit.federate.simulation import session

SLEEPS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def test_what_does_not_end_is_killed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(session, "END_S", 0.5)
    process = subprocess.Popen([sys.executable, "-c", SLEEPS], env={"FLWR_HOME": str(tmp_path)}, start_new_session=True)
    until = time.monotonic() + 300
    while session.processes(str(tmp_path)) != [process.pid]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert session.processes(str(tmp_path / "other")) == []
    session.end_all(str(tmp_path))
    assert process.wait(timeout=300) == -9
    assert session.processes(str(tmp_path)) == []


def test_texts_are_quoted_as_toml_has_them() -> None:
    assert session._toml('a "b" \\c') == '"a \\"b\\" \\\\c"' and session._toml(3) == "3"
