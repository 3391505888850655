from collections.abc import Callable
from typing import Any

from edgekit.errors import UsageError
from edgekit.server.ranks.back import JointBackHalf
from edgekit.server.ranks.join import Joint
from edgekit.server.ranks.place import Place
from edgekit.server.service import Service
from tests.server.ranks.together import at_once, groups

TOLD = {"devices": 4, "mode": "sync", "ahead": None, "rank_timeout": 60.0, "lr": 0.1, "listen": "127.0.0.1:0"}


def agreed(make: Callable[..., Service], *told: dict[str, Any]) -> list[Any]:
    ranks = [Joint(Place(i, 2, i), each) for i, each in enumerate(told)]
    setups = [make().setup for _ in ranks]
    for rank, group in zip(ranks, groups(2), strict=True):
        rank._group = group
    return at_once(*(lambda i=i: ranks[i].agree(setups[i]) for i in range(2)))


def test_ranks_that_were_told_the_same_train_together(make: Callable[..., Service]) -> None:
    for setup in agreed(make, TOLD, {**TOLD, "listen": "0.0.0.0:1", "out": "elsewhere"}):
        assert isinstance(setup.back, JointBackHalf)


def test_ranks_that_were_told_differently_end_both(make: Callable[..., Service]) -> None:
    for error in agreed(make, TOLD, {**TOLD, "lr": 0.2, "devices": 5}):
        assert isinstance(error, UsageError)
        assert "rank 1 was not started as rank 0: devices is 5 there, not 4, lr is 0.2 there, not 0.1" in str(error)
