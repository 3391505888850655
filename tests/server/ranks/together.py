"""Ranks in threads of one process: a group that needs no network, and what all of them do at once."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgekit.errors import TransportError
from edgekit.server.ranks.place import Place

#: Seconds that a rank waits for the others: a test that fails is not to hang.
LIMIT_S = 60


class Table:
    """Where the ranks meet."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.barrier = threading.Barrier(world, timeout=LIMIT_S)
        self.given: list[Any] = [None] * world


class ThreadGroup:
    """As `edgekit.server.ranks.group.Group`, of threads. `leave` is what a rank does that is lost."""

    def __init__(self, table: Table, rank: int) -> None:
        self.place = Place(rank, table.world, rank)
        self.lost: TransportError | None = None
        self._table = table

    def leave(self) -> None:
        self._table.barrier.abort()

    def _all(self, mine: Any) -> list[Any]:
        try:
            self._table.given[self.place.rank] = mine
            self._table.barrier.wait()
            told = list(self._table.given)
            self._table.barrier.wait()
        except threading.BrokenBarrierError:
            self.lost = TransportError("a rank was lost")
            raise self.lost from None
        return told

    def all(self, flag: bool) -> bool:
        return all(self._all(flag))

    def most(self, value: float) -> float:
        return float(max(self._all(value)))

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        told = self._all([tensor.clone() for tensor in tensors])
        for tensor, *each in zip(tensors, *told, strict=True):
            tensor.copy_(sum(each[1:], each[0]))

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._all(tensor))

    def exchange(self, data: bytes) -> list[bytes]:
        return self._all(data)


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What each job gives, or the error that it ends with, all at the same time."""
    found: list[Any] = [None] * len(jobs)

    def do(i: int) -> None:
        try:
            found[i] = jobs[i]()
        except Exception as error:  # noqa: BLE001 - told to who asked
            found[i] = error

    threads = [threading.Thread(target=do, args=(i,), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "a rank hangs"
    return found


def groups(world: int) -> list[Any]:
    """One for each rank."""
    table = Table(world)
    return [ThreadGroup(table, rank) for rank in range(world)]
