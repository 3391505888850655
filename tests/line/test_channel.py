"""What TCP is told of connections, and what becomes of one whose other machine is gone."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from edgekit.line import channel

#: A connection in a network of its own, whose only interface then goes down, as when a cable is cut.
CUT = """
import select, socket, subprocess, sys, time
from edgekit.line import channel
channel.DEAD_S, channel.IDLE_S, channel.AGAIN_S = 3.0, 1, 1
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
channel.watch(port)
near = socket.create_connection(("127.0.0.1", port))
far, _ = listener.accept()
assert channel.watch(port) == 3
time.sleep(5)
assert channel.end_dead(port) == 0 and not select.select([near, far], [], [], 0)[0], "it is silent, not dead"
subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
if sys.argv[1] == "busy":
    near.sendall(b"x"), far.sendall(b"x")
for end in (near, far):
    until = time.monotonic() + 100
    while not select.select([end], [], [], 0.1)[0]:
        assert time.monotonic() < until, "it was never noticed"
        if sys.argv[1] == "busy":
            channel.end_dead(port)
    try:
        print("dead:", end.recv(10))
    except TimeoutError as error:
        print("dead:", error)
"""


def options(line: socket.socket) -> tuple[int, ...]:
    """Whether TCP asks for signs of life, after how many seconds, how often, and how many times."""
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    asks = line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return (asks, *(line.getsockopt(socket.IPPROTO_TCP, name) for name in names))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_accepted_connections_and_ones_own_are_watched(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert channel.watch(port) == 1
    with socket.create_connection(("127.0.0.1", port)) as near, listener.accept()[0] as far:
        assert options(far) == (1, 20, 10, 6) and options(near)[0] == 0
        assert channel.watch(port) == 3
        assert options(near) == (1, 20, 10, 6)


def test_other_sockets_are_left_alone(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert channel.watch(listener.getsockname()[1]) == 1
        assert options(other)[0] == 0
        assert channel.watch(1) == 0


def test_looking_leaves_no_file_open(listener: socket.socket) -> None:
    before = os.listdir("/proc/self/fd")
    channel.watch(listener.getsockname()[1])
    channel.end_dead(listener.getsockname()[1])
    assert os.listdir("/proc/self/fd") == before


def test_a_receiver_that_reads_slowly_is_not_dead(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its window is shut most of the time, as that of an emulated line."""
    monkeypatch.setattr(channel, "DEAD_S", 2.0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as near, listener.accept()[0] as far:
        near.setblocking(False)
        near.send(bytes(1 << 20))
        until = time.monotonic() + 6
        while time.monotonic() < until:
            assert far.recv(4000)
            time.sleep(0.1)
            assert channel.end_dead(port) == 0


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_a_machine_that_is_gone_is_noticed(how: str) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("no network of its own can be made here")
    command = [unshare, "-rn", sys.executable, "-c", CUT, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout.count("dead:") == 2, done.stdout + done.stderr
