"""Joint: what `edgekit serve` does more when it is one rank of several."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

import edgekit
from edgekit.errors import EdgekitError, UsageError
from edgekit.server.ranks.back import JointBackHalf
from edgekit.server.ranks.group import Group, device_of
from edgekit.server.ranks.news import pack, unpack
from edgekit.server.ranks.place import Place
from edgekit.server.ranks.run import JointRun
from edgekit.server.setup import Setup

#: Options that ranks need not have in common.
OWN = ("bundle", "listen", "identity", "insecure", "out", "overwrite", "as_json", "torch_device", "server_threads")


class Joint:
    """This rank, which was told `options`, by name, that `edgekit.server.ranks.place.check_options` found right."""

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        self.place = place
        self._told = {name: value for name, value in options.items() if name not in OWN}
        self._group: Group | None = None
        self._run: JointRun | None = None

    def meet(self, device: torch.device) -> torch.device:
        """Waits for the other ranks; the torch device of this one, where all were told `device`."""
        device = device_of(self.place, device)
        self._group = Group(self.place, device, self._told["rank_timeout"])
        return device

    def agree(self, setup: Setup) -> Setup:
        """`setup` with a back half that trains with those of the other ranks.

        UsageError, at all ranks, where one was not told what rank 0 was.
        """
        assert self._group is not None
        versions = {"edgekit": edgekit.__version__, "torch": torch.__version__, "torch device": setup.back.device.type}
        told = {**self._told, **versions, "bundle": setup.digest}
        first, *others = (unpack(data)[0] for data in self._group.exchange(pack(told)))
        for rank, other in enumerate(others, 1):
            differ = [name for name in told if other.get(name) != first.get(name)]
            if differ:
                said = ", ".join(f"{name} is {other.get(name)} there, not {first.get(name)}" for name in differ)
                raise UsageError(f"rank {rank} was not started as rank 0: {said}; start all ranks alike")
        return setup._replace(back=JointBackHalf(setup.back, self._group, setup.optimizer))

    def make_run(self, *given: Any) -> JointRun:
        """For `edgekit.server.service.Service`."""
        assert self._group is not None
        self._run = JointRun(self._group, *given)
        return self._run

    def start(self, on_over: Callable[[], None]) -> None:
        """Begins to act with the other ranks; `on_over` is called when the run is over, or has failed."""
        assert self._run is not None
        self._run.start(on_over)

    @property
    def failed(self) -> EdgekitError | None:
        """Why the run ended before its devices had."""
        return self._run.failed if self._run else None

    def close(self) -> None:
        """After the end; raises why the run failed, if it did."""
        if self.failed is not None:
            raise self.failed
        if self._group is not None:
            self._group.close()
