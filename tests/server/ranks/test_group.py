"""Two real processes that talk by gloo over loopback; the second one ends at once, or falls silent."""

import os
import socket
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import spawn

from edgekit.errors import TransportError, UsageError
from edgekit.server.ranks import group as of_group
from edgekit.server.ranks.group import FIRST, Group, device_of
from edgekit.server.ranks.place import Place

CPU = torch.device("cpu")
#: Seconds after which a silent rank is lost, and within which a lost one must be an error on a busy machine.
SILENT_S, BOUND_S = 5.0, 60.0


def rank(index: int, port: int, told: Any, ends: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    group = Group(Place(index, 2, index), CPU, SILENT_S)
    tensors = [torch.full((2, 3), 1.0 + index), torch.arange(4.0).to(memory_format=torch.contiguous_format)]
    group.add(tensors)
    long = bytes([index]) * (FIRST + 1000 * index)
    found = {
        "all": [group.all(True), group.all(index == 0)],
        "most": group.most(-1.5 - index),
        "added": [tensor.tolist() for tensor in tensors],
        "gathered": group.gather(torch.tensor([index, 7])).tolist(),
        "exchanged": [group.exchange(data) for data in (b"", bytes([index]) * (index + 1), long, long[: FIRST - 8])],
    }
    if index == 1 and ends == "dies":
        os._exit(3)
    if index == 1 and ends == "silent":
        # Longer than anybody listens; it is killed.
        time.sleep(60 * SILENT_S)
    if ends:
        began = time.monotonic()
        for _ in range(2):
            try:
                group.all(True)
            except TransportError as error:
                found["error"] = str(error)
        found["seconds"] = time.monotonic() - began
    group.close()
    told.put((index, found))


def run(ends: str) -> dict[int, Any]:
    """What each rank found that came to its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = mp.get_context("spawn").SimpleQueue()
    spawned = spawn(rank, (port, told, ends), nprocs=2, join=False)
    found = dict(told.get() for _ in range(1 if ends else 2))
    assert spawned is not None
    for process in spawned.processes:
        if ends == "silent":
            process.kill()
        process.join(300)
        assert process.exitcode is not None
    return found


def test_what_ranks_say_to_each_other() -> None:
    found = run("")
    assert found[0] == found[1]
    long = [bytes([i]) * (FIRST + 1000 * i) for i in range(2)]
    assert found[0] == {
        "all": [True, False],
        "most": -1.5,
        "added": [np.full((2, 3), 3.0).tolist(), [0.0, 2.0, 4.0, 6.0]],
        "gathered": [[0, 7], [1, 7]],
        "exchanged": [[b"", b""], [b"\0", b"\1\1"], long, [each[: FIRST - 8] for each in long]],
    }


@pytest.mark.parametrize("ends", ["dies", "silent"])
def test_a_lost_rank_is_a_transport_error_in_time(ends: str) -> None:
    (found,) = run(ends).values()
    assert found["error"].startswith("rank 0 of 2 lost rank 1: it ended, cannot be reached, or said nothing for 5 s (")
    assert found["seconds"] < BOUND_S


def test_ranks_that_do_not_come_are_a_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(of_group, "START_S", 2.0)
    with pytest.raises(TransportError, match="rank 1 of 2 lost rank 0"):
        Group(Place(1, 2, 1), CPU, SILENT_S)


def test_each_rank_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of(Place(1, 2, 1), CPU) == CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="2 ranks on this machine, torch sees 1 CUDA devices"):
        device_of(Place(1, 2, 1), torch.device("cuda"))
