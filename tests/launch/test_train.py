"""What a training is refused for before anything is exported."""

from typing import Any

import pytest

from edgekit.errors import UsageError
from edgekit.export.rate.choose import Goal
from edgekit.export.settings import BoardSettings, Coding, NamedData, NamedNetwork, as_coding
from edgekit.launch.settings import Run, Server, Training
from edgekit.launch.train import check
from edgekit.server.modes import FleetSettings


def run(training: Training, coding: Coding | None = None, **fleet: Any) -> Run:
    server = Server(fleet=FleetSettings(**fleet))
    return Run(NamedNetwork("vgg11"), NamedData(), coding or as_coding("sgq"), BoardSettings(), training, server, 0)


@pytest.mark.parametrize(("epochs", "tests"), [({}, 1), ({"sync_every": "2epochs"}, 1), ({"sync_every": "6epochs"}, 3)])
def test_layers_are_chosen_in_vain_where_a_test_follows_every_round(epochs: dict[str, Any], tests: int) -> None:
    training = Training(4, epochs=12, evaluate_every=tests)
    with pytest.raises(UsageError, match="--update-layers last:1: a test follows every round, and carries all layers"):
        check(run(training, update_layers="last:1", **epochs))
    check(run(training, **epochs))


@pytest.mark.parametrize("every", ["10", "1epoch", "4epochs"])
def test_layers_are_chosen_where_rounds_come_between_tests(every: str) -> None:
    check(run(Training(4, epochs=12, evaluate_every=6), update_layers="last:1", sync_every=every))


def test_a_number_of_bytes_and_rounds_by_the_clock() -> None:
    coding = as_coding("sgq")._replace(goal=Goal(target_bytes=300.0))
    with pytest.raises(UsageError, match="--target-bytes counts rounds too, and by the clock"):
        check(run(Training(4), coding, sync_every="30s"))
    check(run(Training(4), coding))
