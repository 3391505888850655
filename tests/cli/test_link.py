"""`edgekit link`: what it says, when it ends, and with which code."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(300)
        yield listener


@pytest.fixture
def start(target: socket.socket) -> Iterator[Start]:
    """Starts `edgekit link ARGUMENTS` to the target, and leaves none running."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        address = f"127.0.0.1:{target.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "edgekit", "link", *arguments, "--to", address], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONUNBUFFERED="1"),
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def exchange(port: int, target: socket.socket) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=300) as near:
        far, _ = target.accept()
        with far:
            near.sendall(b"up")
            assert far.recv(2) == b"up"
            far.sendall(b"down")
            assert near.recv(4) == b"down"


def test_events_and_an_end_after_the_last_connection(start: Start, target: socket.socket) -> None:
    process = start("2Mbit/10mbit,4ms", "--connections", "2", "--json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first == {"event": "listening", "port": first["port"], "link": "2mbit/10mbit+4ms"}
    exchange(first["port"], target)
    assert process.poll() is None
    exchange(first["port"], target)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    last = json.loads(out)
    assert 0 <= last.pop("cpu_s") < 5
    assert last == {"event": "carried", "bytes_up": 4, "bytes_down": 8, "connections": 2, "unreachable": 0}


def test_lines_for_a_person_until_it_is_asked_to_end(start: Start, target: socket.socket) -> None:
    process = start("10mbit")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("listening at port ") and "10mbit to 127.0.0.1:" in first
    exchange(int(first.split()[3].rstrip(",")), target)
    rates = process.stdout.readline()
    assert "up 0.000 MB, 0.000 Mbit/s; down 0.000 MB" in rates
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and err.strip() == "stopped"
    assert out == "bytes_up 2, bytes_down 4, connections 1, unreachable 0\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["10mb"], 2, "link '10mb': expected RATE"),
        (["10mbit", "--listen", "x"], 2, "expected HOST:PORT with a port up to 65535, got 'x'"),
        (["10mbit", "--listen", "192.0.2.1:0"], 9, "cannot listen at 192.0.2.1:0"),
        (["10mbit", "--connections", "0"], 2, "--connections"),
    ],
)
def test_what_makes_no_sense(start: Start, arguments: list[str], code: int, message: str) -> None:
    process = start(*arguments)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code and message in err and "Traceback" not in err
