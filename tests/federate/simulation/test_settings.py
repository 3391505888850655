"""What a run is told: through JSON and back, and the strategies' names."""

from pathlib import Path

import pytest

from edgekit.errors import UnknownName, UsageError
from edgekit.federate.run import Plan
from edgekit.federate.settings import Local
from edgekit.federate.simulation.settings import Told, parse_strategy, read

TOLD = Told(
    "vgg11_thin", (3, 32, 32), None, ("a", "b"), (0.1, 0.2, 0.3), (1.0, 1.0, 1.0), "images", "network", "fedavg",
    Plan(rounds=3, down_codec="quantised", local=Local(epochs=2, layers=("classifier",))),
)  # fmt: skip


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(TOLD.to_json(), encoding="utf-8")
    assert read(str(tmp_path / "task.json")) == TOLD


@pytest.mark.parametrize(
    ("text", "flowers"),
    [
        ("fedavg", ("FedAvg", {})),
        ("fedavgm:lr=0.5,momentum=0.9", ("FedAvgM", {"server_learning_rate": 0.5, "server_momentum": 0.9})),
        ("fedyogi:beta1=0.8", ("FedYogi", {"beta_1": 0.8})),
    ],
)
def test_strategies_become_flowers(text: str, flowers: tuple[str, dict[str, float]]) -> None:
    assert parse_strategy(text) == flowers


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("fedadm", UnknownName, "did you mean fedadam"),
        ("fedadam:beta=1", UnknownName, "did you mean beta2 or beta1"),
        ("fedavg:lr=1", UnknownName, "it takes none"),
        ("fedadam:lr=fast", UsageError, "expected a number"),
        ("fedadam:lr=-1", UsageError, "not negative"),
    ],
)
def test_others_are_refused(text: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        parse_strategy(text)
