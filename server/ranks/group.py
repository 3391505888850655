"""Group: what the ranks of one server say to each other, by torch.distributed. All of them call the same, in one order.

Flags, texts and the like go by gloo; what is on a GPU goes by NCCL. No pickle is used. Everything is in the clear, and
who can reach the ports can take part: ranks belong on one machine, or in a network of their own.
"""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from edgekit.errors import TransportError, UsageError
from edgekit.server.ranks.place import Place

#: Seconds that a rank waits for the others to start.
START_S = 300.0
#: Bytes that are sent before it is known how many there are.
FIRST = 4096


class Group:
    """The ranks, of which this is `place`. One that says nothing for `timeout_s` seconds is lost.

    Everything raises TransportError when another rank is lost; then nothing more can be said.
    """

    def __init__(self, place: Place, device: torch.device, timeout_s: float) -> None:
        self.place = place
        self._device = device
        self._timeout_s = timeout_s
        #: Why nothing more can be said.
        self.lost: TransportError | None = None
        with self._spoken():
            # Ranks need not start within a second of each other.
            start = datetime.timedelta(seconds=START_S)
            store, rank, world = next(rendezvous("env://", place.rank, place.world, timeout=start))
            dist.init_process_group(
                "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl", store=store, rank=rank, world_size=world,
                timeout=datetime.timedelta(seconds=timeout_s),
            )  # fmt: skip
            # The first connection is made here, and not in a step.
            self.all(True)

    def close(self) -> None:
        """Says goodbye; where a rank is lost, that would wait for it."""
        if self.lost is None:
            dist.destroy_process_group()

    def all(self, flag: bool) -> bool:
        """Whether it is true at all ranks."""
        told = torch.tensor([int(flag)])
        with self._spoken():
            dist.all_reduce(told, dist.ReduceOp.MIN)
        return bool(told.item())

    def most(self, value: float) -> float:
        """The largest `value` of all ranks."""
        told = torch.tensor([value], dtype=torch.float64)
        with self._spoken():
            dist.all_reduce(told, dist.ReduceOp.MAX)
        return float(told.item())

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Makes each tensor, float32, the sum of those of all ranks, in place. Every rank has the same bits then."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._spoken():
            dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """(ranks,*shape): the contiguous tensors of all ranks, which have one shape."""
        told = [torch.empty_like(tensor) for _ in range(self.place.world)]
        with self._spoken():
            dist.all_gather(told, tensor)
        return torch.stack(told)

    def exchange(self, data: bytes) -> list[bytes]:
        """What each rank gave as `data`, in their order."""
        # What is short, as it mostly is, goes with its length.
        told = self._gather_bytes((len(data).to_bytes(8, "little") + data)[:FIRST], FIRST)
        lengths = [int.from_bytes(each[:8], "little") + 8 for each in told]
        if max(lengths) > FIRST:
            rest = self._gather_bytes(data[FIRST - 8 :], max(lengths) - FIRST)
            told = [first + more for first, more in zip(told, rest, strict=True)]
        return [each[8:length] for each, length in zip(told, lengths, strict=True)]

    def _gather_bytes(self, data: bytes, length: int) -> list[bytes]:
        """The `data` of all ranks, each padded to `length`."""
        padded = torch.frombuffer(bytearray(data.ljust(length, b"\0")), dtype=torch.uint8)
        return [row.tobytes() for row in self.gather(padded).numpy()]

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """What torch raises inside becomes TransportError."""
        if self.lost is not None:
            raise self.lost
        try:
            yield
        except RuntimeError as error:
            place = self.place
            other = f"rank {1 - place.rank}" if place.world == 2 else "another rank"
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.lost = TransportError(
                f"rank {place.rank} of {place.world} lost {other}: it ended, cannot be reached, or said nothing for "
                f"{self._timeout_s:g} s ({said[:200]}); the reason is what that rank said last. Start all ranks again"
            )
            raise self.lost from None


def device_of(place: Place, device: torch.device) -> torch.device:
    """The torch device of this rank, where all of a machine were told `device`: each rank has a GPU of its own.

    UsageError where there are too few.
    """
    if device.type != "cuda":
        return device
    there = torch.cuda.device_count()
    if place.local >= there:
        here = os.environ.get("LOCAL_WORLD_SIZE", str(place.local + 1))
        raise UsageError(
            f"{here} ranks on this machine, torch sees {there} CUDA devices: each rank needs one of its own; start "
            "fewer, or take --torch-device cpu"
        )
    torch.cuda.set_device(place.local)
    return torch.device("cuda", place.local)
