"""Place: which of several server processes this one is, as `torchrun` says it in the environment."""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from edgekit.errors import UsageError
from edgekit.line.address import check_address
from edgekit.server.policy import parse_checkpoint

#: What `torchrun` gives every process: its number, how many there are, its number on this machine, and where they meet.
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """Rank `rank` of `world`, and number `local` on its machine. The default is a server of one process."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether it is the rank that keeps the halves, and tells what concerns the whole fleet."""
        return self.rank == 0

    def listen(self, address: str) -> str:
        """Where this rank listens: each rank of a machine one port further than the one before; port 0 stays 0.

        UsageError where that is no port any more.

        >>> Place(3, 4, 1).listen("0.0.0.0:50051")
        '0.0.0.0:50052'
        """
        host, _, port = address.rpartition(":")
        if not int(port) or not self.local:
            return address
        mine = f"{host}:{int(port) + self.local}"
        check_address(mine)
        return mine


def place_of(environment: Mapping[str, str] = os.environ) -> Place:
    """The place that `environment` names; UsageError where it names half of one."""
    if environment.get("WORLD_SIZE", "1") == "1":
        return Place()
    missing = [name for name in NEEDED if name not in environment]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']} in the environment, and {', '.join(missing)} is not there: "
            "start several ranks with torchrun, or unset WORLD_SIZE"
        )
    rank, world, local = (environment[name] for name in NEEDED[:3])
    if not (rank.isdecimal() and world.isdecimal() and local.isdecimal() and int(rank) < int(world)):
        raise UsageError(
            f"rank {rank} of {world}, {local} on its machine: expected numbers, from 0; start several ranks "
            "with torchrun"
        )
    return Place(int(rank), int(world), int(local))


def check_options(options: Mapping[str, Any]) -> None:
    """UsageError for options of `edgekit serve`, by name, with which several ranks make no sense, or do not go yet."""
    if options["devices"] is None:
        raise UsageError(
            "several ranks begin and end together: say how many devices there are at all ranks, with --devices N"
        )
    if options["mode"] != "sync":
        raise UsageError(
            f"--mode {options['mode']}: ranks make each step together, so no device goes on without the others: take "
            "--mode sync, or start one server"
        )
    if options["ahead"] is not None:
        raise UsageError("--ahead: the devices of several ranks keep in step, and none is ahead: leave it out")
    if options["resume"] is not None or (options["out"] is not None and parse_checkpoint(options["checkpoint"])):
        raise UsageError(
            "several ranks save no checkpoints, and do not go on from one: say --checkpoint 0, or start one server"
        )
    if not 1 <= options["rank_timeout"] < math.inf:
        raise UsageError(f"--rank-timeout {options['rank_timeout']}: expected a number of seconds, 1 or more")
