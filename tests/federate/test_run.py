"""Rounds in one process: bytes are those of the messages, and a run that ended anywhere goes on to the same bits."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import tensorfile
from edgekit.codecs.base import Arrays
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.federate.client import Client, Fitted
from edgekit.federate.run import KEPT, Plan, Run
from edgekit.federate.scaling import Place
from edgekit.federate.server import Policy, Server, follow
from edgekit.federate.settings import Local
from tests.federate.conftest import small

Make = Callable[[], nn.Module]
#: A plan with everything that a run keeps from round to round.
ALL = Plan(
    clients=7, rounds=4, update_codec="quantised:step=1", down_codec="quantised:step=1", scaling="on:lr=0.02",
    sampling="dynamic:0.2", policy=Policy(momentum=0.5), local=Local(batch=8, augment="flip"), seed=3,
)  # fmt: skip
FIGURES = ("train_cpu_s", "scaling_cpu_s", "cpu_s")


def told(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of `lines` but the seconds."""
    return [{name: value for name, value in line.items() if name not in FIGURES} for line in lines]


class Killed(Exception):
    pass


def until(number: int) -> Callable[[Mapping[str, Any]], None]:
    """Ends the run after round `number` is saved."""

    def on_round(line: Mapping[str, Any]) -> None:
        if line["round"] == number:
            raise Killed

    return on_round


@pytest.fixture(scope="module")
def whole(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], bytes]:
    """What a run by ALL comes to that nothing ends: its lines, and the network that is kept."""
    folder = tmp_path_factory.mktemp("whole")
    return told(Run(small(), few, ALL, str(folder)).run()), (folder / KEPT).read_bytes()


def test_a_run_goes_on_to_the_same_bits(
    network: Make, few: Dataset, tmp_path: Path, whole: tuple[list[dict[str, Any]], bytes]
) -> None:
    for number in (1, 3):
        with pytest.raises(Killed):
            Run(network(), few, ALL, str(tmp_path)).run(until(number))
    seen: list[Mapping[str, Any]] = []
    assert told(Run(network(), few, ALL, str(tmp_path)).run(seen.append)) == whole[0]
    assert [line["round"] for line in seen] == [4]
    assert (tmp_path / KEPT).read_bytes() == whole[1]
    # One that is over gives its lines again.
    assert told(Run(network(), few, ALL, str(tmp_path)).run(until(4))) == whole[0]


def test_a_round_that_was_not_finished_is_made_again(
    network: Make, few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    whole: tuple[list[dict[str, Any]], bytes],
) -> None:  # fmt: skip
    """The third client of the second round ends the process."""
    real, calls = Client.fit, []

    def fit(self: Client, weights: Any, place: Place) -> Fitted:
        calls.append(place.number)
        if calls.count(1) == 3:
            raise Killed
        return real(self, weights, place)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "fit", fit)
        with pytest.raises(Killed):
            Run(network(), few, ALL, str(tmp_path)).run()
    assert told(Run(network(), few, ALL, str(tmp_path)).run()) == whole[0]
    assert (tmp_path / KEPT).read_bytes() == whole[1]


def test_another_run_does_not_go_on(network: Make, few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Run(network(), few, ALL, str(tmp_path)).run(until(1))
    with pytest.raises(UsageError, match="holds another run"):
        Run(network(), few, ALL._replace(seed=4), str(tmp_path))


def test_neither_do_other_images_labels_or_weights_that_stay(network: Make, few: Dataset, tmp_path: Path) -> None:
    plan = ALL._replace(clients=2, local=ALL.local._replace(layers=("9",)))
    with pytest.raises(Killed):
        Run(network(), few, plan, str(tmp_path)).run(until(1))
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        other = few._replace(**{name: getattr(few, name)[::-1].copy()})
        with pytest.raises(UsageError, match="holds another run"):
            Run(network(), other, plan, str(tmp_path))
    other_weights = network()
    with torch.no_grad():
        other_weights[0].weight += 1  # type: ignore[index]
    with pytest.raises(UsageError, match="holds another run"):
        Run(other_weights, few, plan, str(tmp_path))
    assert len(Run(network(), few, plan, str(tmp_path)).run()) == 4


@pytest.mark.parametrize("down", ["none", "quantised:step=1"])
def test_bytes_are_those_of_the_messages(
    network: Make, few: Dataset, monkeypatch: pytest.MonkeyPatch, down: str
) -> None:
    """Each client, with a copy of its own that follows the messages alone, starts from the weights of the server."""
    plan = ALL._replace(down_codec=down, rounds=5, sampling="static:0.5")
    up_bytes, down_bytes = [0] * 5, [0] * 5
    copies: dict[Client, Arrays] = {}
    variances = ("1.running_var", "4.running_var")
    codec = plan.codecs()[1]
    real_message, real_fit = Server.message, Client.fit
    last: list[bytes] = []

    def message(self: Server, has: int) -> bytes:
        sent = real_message(self, has)
        down_bytes[self.number] += len(sent)
        last.append(sent)
        return sent

    def fit(self: Client, weights: Any, place: Place) -> Fitted:
        copies[self] = follow(copies.get(self, first), last.pop(), codec, variances)
        assert all(np.array_equal(copies[self][name], weights[name]) for name in weights)
        fitted = real_fit(self, copies[self], place)
        up_bytes[place.number] += len(fitted.payload)
        return fitted

    run = Run(network(), few, plan)
    first = run.network.weights
    monkeypatch.setattr(Server, "message", message)
    monkeypatch.setattr(Client, "fit", fit)
    lines = run.run()
    assert [line["bytes_up"] for line in lines] == up_bytes and min(up_bytes) > 0
    assert [line["bytes_down"] for line in lines] == down_bytes
    assert len(copies) == 7 and [line["clients"] for line in lines] == [4] * 5


def test_fedavg_costs_four_bytes_a_value(network: Make, few: Dataset) -> None:
    plan = Plan(clients=2, rounds=2, update_codec="fedavg", local=Local(batch=20))
    run = Run(network(), few, plan)
    size = 4 * sum(array.size for array in run.network.weights.values())
    first, second = run.run()
    # Two parts, of weights and of statistics, each behind its length.
    assert first["bytes_up"] == second["bytes_up"] == 2 * (size + 8) and first["formula_bytes_up"] == 2 * size
    # The first weights are everywhere; a byte says that nothing is new.
    assert (first["bytes_down"], second["bytes_down"]) == (2, 2 * (1 + size))


def test_dynamic_sampling_draws_fewer_and_fewer(network: Make, few: Dataset) -> None:
    plan = Plan(clients=12, rounds=6, sampling="dynamic:0.3", local=Local(batch=20), evaluate_every=6)
    lines = Run(network(), few, plan).run()
    assert [line["clients"] for line in lines] == [max(5, math.ceil(12 * math.exp(-0.3 * t))) for t in range(6)]
    assert lines[0]["clients"] == 12 and lines[-1]["clients"] == 5
    assert [line["round"] for line in lines if "accuracy" in line] == [6]


@pytest.mark.parametrize("scaling", ["off", "on:epochs=2,lr=0.01"])
def test_it_learns(network: Make, few: Dataset, tmp_path: Path, scaling: str) -> None:
    plan = Plan(
        clients=2, rounds=6, update_codec="quantised", down_codec="quantised", scaling=scaling,
        local=Local(batch=10, epochs=2),
    )  # fmt: skip
    lines = Run(network(), few, plan, str(tmp_path)).run()
    assert lines[-1]["accuracy"] > 60 and lines[-1]["test_loss"] < lines[0]["test_loss"]
    if scaling != "off":
        assert all(0 <= line["scaled"] <= 2 and line["scaling_cpu_s"] > 0 for line in lines)
        assert any(line["scaled"] for line in lines)
    # What is kept has no scales: it is weights of the network itself.
    data = (tmp_path / KEPT).read_bytes()
    assert {n: a.shape for n, a in tensorfile.loads(data).items()} == {
        name: tuple(tensor.shape) for name, tensor in network().state_dict().items()
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": 0}, {"rounds": 0}, {"evaluate_every": 0}, {"update_codec": "zip"}, {"down_codec": "zip"},
        {"statistics_codec": "zip"}, {"scales_codec": "zip"},
        {"scaling": "yes"}, {"sampling": "some"}, {"policy": Policy(momentum=2.0)}, {"local": Local(epochs=0)},
        {"partition": "uneven"}, {"clients": 500},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(network: Make, few: Dataset, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Run(network(), few, ALL._replace(**wrong), str(tmp_path))
    assert not list(tmp_path.iterdir())
