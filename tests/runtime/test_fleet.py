"""Three devices in three threads against one service: every way to keep them in step ends with one network."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.carried import Carried
from edgekit.data.base import Dataset
from edgekit.line.messages import Weights
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.rounds import Rounds
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from edgekit.server.calibrate import calibrator
from edgekit.server.local_loss import WITHOUT, LocalLoss
from edgekit.server.modes import FleetSettings
from edgekit.server.pairs import Pairs
from edgekit.server.service import Service
from edgekit.server.setup import setup_from_bundle
from edgekit.server.train import OptimizerConfig
from edgekit.server.watch import Watch

NAMES = ("a", "b", "c")
#: Images of the three, not equal.
SHARES = (slice(0, 300), slice(300, 420), slice(420, 640))


class Run:
    """A training of all three: devices, events of all, and the service."""

    def __init__(
        self, bundle: Bundle, digits: Dataset, settings: FleetSettings, pairs: Pairs | None = None,
        held_out: int = 0, local: LocalLoss = WITHOUT, **options: Any,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        self.events: list[dict[str, Any]] = []
        setup = setup_from_bundle(
            bundle,
            torch.device("cpu"),
            calibrator("dct", 0),
            OptimizerConfig("sgd", 0.05, 0.9, 5e-4),
            "cosine",
            local_loss=local,
        )
        self.service = Service(
            setup, self.events.append, settings.patience(3), settings.rounds(3), pairs, 0,
            Watch(setup.classes, setup.golden_size),
        )  # fmt: skip
        self.devices: dict[str, Device] = {}
        self.failed: list[BaseException] = []
        threads = [
            threading.Thread(target=self._train, name=name, args=(bundle, digits, name, share, held_out, options))
            for name, share in zip(NAMES, SHARES, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert not self.failed, self.failed

    def _train(
        self, bundle: Bundle, digits: Dataset, name: str, share: slice, held_out: int, options: dict[str, Any]
    ) -> None:
        try:
            device = Device(
                FrontHalf(bundle, "onnxruntime", 1), Loopback(self.service.handle, Meter()),
                Options(name, **{"epochs": 3, "batch": 20, **options}), self.events.append,
            )  # fmt: skip
            self.devices[name] = device
            images, labels = digits.train_images[share], digits.train_labels[share]
            validation = Images(images[:held_out], labels[:held_out])
            device.train(
                Images(images[held_out:], labels[held_out:]),
                Images(digits.test_images[:60], digits.test_labels[:60]),
                validation if held_out else None,
            )
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            self.failed.append(error)
            for session in self.service.fleet.in_order():
                if session.device == name:
                    self.service.broke(session.number, None)

    def states(self) -> list[dict[str, np.ndarray]]:
        return [self.devices[name].front.state for name in NAMES]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


def differing(states: list[dict[str, np.ndarray]]) -> set[str]:
    """Names of what is not bit for bit the same in all."""
    return {name for name in states[0] if any(not np.array_equal(states[0][name], each[name]) for each in states)}


@pytest.mark.parametrize(
    ("settings", "rounds"),
    [
        (FleetSettings(), 3),
        (FleetSettings(sync_every="5"), 9),
        (FleetSettings(sync_every="2epochs"), 3),  # before each test too
        (FleetSettings(mode="async"), 3),
        (FleetSettings(mode="async", ahead=2), 3),
        (FleetSettings(update_codec="fedavg", average="trimmed"), 3),
        (FleetSettings(update_codec="terngrad"), 3),
        (FleetSettings(update_codec="dhqc", update_codec_down="stc", sync_every="5", update_layers="last:1"), 9),
        (FleetSettings(update_codec="dgc:keep=0.1,momentum=0.5,clip=1"), 3),
        (FleetSettings(update_codec="fsfl:sparsity=0.9,feedback=true"), 3),
        (FleetSettings(update_codec="quantised:step=1", update_codec_down="fedavg"), 3),
        (FleetSettings(sync_every="5", update_layers="last:1"), 9),
        (FleetSettings(server_momentum=0.5, average="mean"), 3),
        (FleetSettings(sampling="static:0.5"), 3),
        (FleetSettings(joint_batch=100), 3),
    ],
    ids=str,
)
def test_all_end_with_one_network(small_bundle: Bundle, digits: Dataset, settings: FleetSettings, rounds: int) -> None:
    run = Run(small_bundle, digits, settings)
    assert not differing(run.states())
    tables = [run.devices[name].front.tables for name in NAMES]
    assert not differing(tables)
    assert {name: each.tolist() for name, each in run.service.rounds.weights.items()} == {
        name: run.states()[0][name].tolist() for name in run.service.rounds.weights
    }
    assert len(run.of("round")) == run.service.rounds.number == rounds
    rests = settings.sampling != "all"
    assert run.service.fleet.progress == pytest.approx(1.0, abs=0.25 if rests else 1e-6)
    done = run.of("done")
    assert len({tuple(event["by_class"]["correct"]) for event in done}) == 1, "one network, the same test images"
    assert run.of("tested")[-1]["accuracy"] == done[0]["accuracy"] == done[0]["fleet"]["accuracy"]
    moved = [name for name, array in run.states()[0].items() if not np.array_equal(array, initial(small_bundle)[name])]
    assert any("conv" in name or "weight" in name for name in moved)
    if rests:
        assert 0 < sum(event["images"] for event in done) < 3 * 640, "some sat rounds out"
        epochs = [event for event in run.of("epoch") if event["images"]]
        assert all(event["loss"] > 0 and event["train_accuracy"] > 0 for event in epochs)


def test_layers_that_rounds_do_not_carry_are_a_devices_own_until_a_test(
    small_bundle: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    seen: list[set[str]] = []

    class Watching(Rounds):
        def adopt(self, weights: Weights) -> None:
            super().adopt(weights)
            seen.append({name for name, array in self._base.items()
                         if not np.array_equal(array, self._front.state[name])})  # fmt: skip

    settings = FleetSettings(sync_every="1epoch", update_layers="last:1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.runtime.session.Rounds", Watching)
        run = Run(small_bundle, digits, settings, Pairs(str(tmp_path)), evaluate_every=3)
    chosen = set(Carried(run.service.rounds.weights, run.service.rounds.layers).chosen)
    assert len(run.of("round")) == 3 and len(run.of("tested")) == 1 and chosen
    # Two rounds of each of the three without the others, then one with all.
    assert sorted(map(len, seen)) == [0] * 3 + [len(run.service.rounds.weights) - len(chosen)] * 6
    assert not any(each & chosen for each in seen) and not differing(run.states())
    kept = tensorfile.loads((tmp_path / "front.safetensors").read_bytes())
    for name, array in run.states()[0].items():
        np.testing.assert_array_equal(kept[name], array)
    up = [event["bytes"] for event in run.of("round")]
    assert up[0] < up[2] and up[1] < up[2]


def initial(bundle: Bundle) -> dict[str, np.ndarray]:
    return bundle.arrays("front.safetensors")


def test_statistics_may_stay_a_devices_own(small_bundle: Bundle, digits: Dataset) -> None:
    run = Run(small_bundle, digits, FleetSettings(norm_statistics="local"))
    assert differing(run.states()) == set(run.devices["a"].front.statistics) != set()


def test_the_local_heads_are_averaged_too(small_bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    runs = [
        Run(small_bundle, digits, FleetSettings(), Pairs(str(tmp_path / of)), local=LocalLoss(0.5, 2), epochs=2)
        for of in ("first", "second")
    ]
    assert not differing([state for run in runs for state in run.states()])
    kept = tensorfile.loads((tmp_path / "second" / "front.safetensors").read_bytes())
    for name, array in small_bundle.head_weights().items():
        assert not np.array_equal(runs[0].states()[0][name], array)
        np.testing.assert_array_equal(kept[name], runs[0].states()[0][name])


def test_a_round_by_the_clock(small_bundle: Bundle, digits: Dataset) -> None:
    run = Run(small_bundle, digits, FleetSettings(sync_every="1s"), epochs=2)
    assert not differing(run.states()) and len(run.of("round")) >= 2
    assert not run.service.ended()["repeatable"]


@pytest.mark.parametrize("left", [1, 3])
def test_one_that_is_behind_when_the_clock_strikes(
    small_bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """The others are at their end then, and wait until it is there too."""

    def until_due(self: Rounds, rest: list[np.ndarray], ends: bool) -> Iterator[np.ndarray]:
        while rest and not self.due:
            yield rest.pop(0)
            self.due = threading.current_thread().name == "a" and len(rest) == left
        self.due = self.due or ends

    monkeypatch.setattr(Rounds, "_until_due", until_due)
    run = Run(small_bundle, digits, FleetSettings(sync_every="30s"), epochs=2)
    assert not differing(run.states())
    assert not differing([run.devices[name].front.tables for name in NAMES])
    assert sum(event["images"] for event in run.of("round")) == 2 * 640, "all that was learned is in"
    assert run.of("tested")[-1]["devices"] == 3 and not run.service.fleet.late_updates


def test_alone_each_ends_with_its_own(small_bundle: Bundle, digits: Dataset) -> None:
    run = Run(small_bundle, digits, FleetSettings(sync_every="0"))
    assert differing(run.states()) and not run.of("round")
    # The last test is of the last back half, for which all waited.
    assert run.of("tested")[-1]["devices"] == 3


def test_the_same_seed_gives_the_same_bits(small_bundle: Bundle, digits: Dataset) -> None:
    runs = [Run(small_bundle, digits, FleetSettings()) for _ in range(2)]
    assert not differing([run.states()[0] for run in runs])
    assert not differing([run.service.setup.back.state_dict() for run in runs])
    assert all(run.service.ended()["repeatable"] for run in runs)


def test_the_last_and_the_best_pair_are_kept(small_bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    run = Run(small_bundle, digits, FleetSettings(), Pairs(str(tmp_path)), held_out=30)

    def kept(*path: str) -> dict[str, np.ndarray]:
        return tensorfile.loads(tmp_path.joinpath(*path).read_bytes())

    last = run.states()[0]
    assert not differing([kept("front.safetensors"), last])
    assert not differing([kept("back.safetensors"), run.service.setup.back.state_dict()])
    tests = run.of("tested")
    assert len(tests) == 3 and all(event["images"] == 180 for event in tests)
    # The validation split decides, not the test split.
    accuracies = [event["validation_accuracy"] for event in tests]
    best = [event["best"] for event in tests]
    assert best == [each > max(accuracies[:n], default=-1.0) for n, each in enumerate(accuracies)]
    if best[-1]:
        assert not differing([kept("best", "front.safetensors"), last])
    epochs = [event for event in run.of("epoch") if event["device"] == "a"]
    assert all({"validation_loss", "validation_accuracy", "test_loss", "loss"} <= set(event) for event in epochs)
