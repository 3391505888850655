from typing import Any

import pytest

from edgekit.errors import UsageError
from edgekit.server.ranks.place import NEEDED, Place, check_options, place_of

SECOND = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
TOLD: dict[str, Any] = {
    "devices": 4, "mode": "sync", "ahead": None, "rank_timeout": 60.0, "resume": None, "out": "runs/one",
    "checkpoint": "0",
}  # fmt: skip


def test_a_server_of_one_process() -> None:
    assert place_of({}) == place_of({"WORLD_SIZE": "1", "RANK": "0"}) == Place()
    assert Place().alone and Place().first and Place().listen("127.0.0.1:50051") == "127.0.0.1:50051"


def test_a_rank_listens_one_port_further_than_the_one_before_on_its_machine() -> None:
    place = place_of(SECOND)
    assert place == Place(3, 4, 1) and not place.alone and not place.first
    assert place.listen("0.0.0.0:50051") == "0.0.0.0:50052"
    assert place.listen("[::1]:50051") == "[::1]:50052"
    assert place.listen("127.0.0.1:0") == "127.0.0.1:0"
    with pytest.raises(UsageError, match="port up to 65535"):
        place.listen("127.0.0.1:65535")


@pytest.mark.parametrize("name", [name for name in NEEDED if name != "WORLD_SIZE"])
def test_half_a_place_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is not there: start several ranks with torchrun"):
        place_of({key: value for key, value in SECOND.items() if key != name})


@pytest.mark.parametrize("wrong", [{"RANK": "4"}, {"RANK": "-1"}, {"WORLD_SIZE": "x"}, {"LOCAL_RANK": ""}])
def test_nonsense_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected numbers"):
        place_of({**SECOND, **wrong})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"devices": None}, "say how many devices"),
        ({"mode": "async"}, "--mode async: ranks make each step together"),
        ({"ahead": 3}, "--ahead"),
        ({"resume": "runs/one"}, "say --checkpoint 0"),
        ({"out": "runs/one", "checkpoint": "60s"}, "say --checkpoint 0"),
        ({"rank_timeout": 0.5}, "--rank-timeout 0.5"),
        ({"rank_timeout": float("inf")}, "--rank-timeout inf"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_options({**TOLD, **wrong})


def test_what_several_ranks_can_do_is_not_refused() -> None:
    check_options(TOLD)
    check_options({**TOLD, "out": None, "checkpoint": "60s"})
