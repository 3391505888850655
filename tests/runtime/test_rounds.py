"""Rounds on a device: when there is one, what it says, and the weights and codebooks that it takes."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.data.base import Dataset
from edgekit.errors import PayloadError, ShapeError, UsageError
from edgekit.line.frame import Message
from edgekit.line.messages import Weights, Welcome
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.rounds import Rounds
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from edgekit.sampling import Sampling
from edgekit.server.policy import Every, Patience, RoundPolicy
from edgekit.server.service import Service
from tests.runtime.loopback import service

WELCOME = Welcome(1, 4, "raw", {}, False, "sgd", 0.9, 0.0, b"", b"")
#: A frame of weights that say nothing: the first round is over.
NOTHING = Weights(1, 1, b"", b"")


def front_of(**values: float) -> Any:
    """What rounds need of a front half: a weight, a mean and a variance of these values, and a count."""
    state: Arrays = {name: np.array([value, 2 * value], np.float32) for name, value in values.items()}
    state["count"] = np.array(0)
    learned = tuple(values)
    front = SimpleNamespace(state=state, learned=learned, statistics=("mean", "variance"), variances=("variance",))
    front.set_state = lambda arrays: state.update({name: array.copy() for name, array in arrays.items()})
    return front


def rounds_of(front: Any = None, **plan: Any) -> Rounds:
    return Rounds(front or front_of(weight=1.0, mean=2.0, variance=3.0), WELCOME._replace(**plan), 0)


def batches(n: int) -> list[np.ndarray]:
    return [np.array([2 * i, 2 * i + 1]) for i in range(n)]


def run(rounds: Rounds, n: int, epoch: int = 1, ends: bool = True) -> list[tuple[list[int], bool]]:
    """For each leg of an epoch of `n` batches: the numbers of the batches, and whether a round follows."""
    legs = []
    for leg in rounds.legs(batches(n), epoch, ends, last=False):
        legs.append(([int(batch[0]) // 2 for batch in leg], rounds.due))
        if rounds.due:
            rounds.adopt(Weights(1, rounds.number + 1, b"", b"", resting=rounds.resting))
    return legs


class TestLegs:
    @given(st.integers(1, 40), st.integers(1, 12))
    def test_every_batch_once_in_as_many_legs_as_there_are_rounds(self, n: int, per_epoch: int) -> None:
        legs = run(rounds_of(rounds=per_epoch), n)
        assert len(legs) == per_epoch and all(due for _, due in legs)
        assert [number for leg, _ in legs for number in leg] == list(range(n))
        sizes = [len(leg) for leg, _ in legs]
        assert max(sizes) - min(sizes) <= 1 and sizes[-1] > 0, "even, and the last round is after the last batch"

    @pytest.mark.parametrize("ends", [False, True])
    def test_a_round_after_some_epochs_and_before_each_test(self, ends: bool) -> None:
        rounds = rounds_of(round_epochs=3)
        found = [run(rounds, 4, epoch, ends) for epoch in range(1, 7)]
        assert all(leg == [0, 1, 2, 3] for ((leg, _),) in found)
        assert [due for ((_, due),) in found] == [ends, ends, True] * 2

    def test_never_where_nothing_is_averaged(self) -> None:
        assert run(rounds_of(), 3) == [([0, 1, 2], False)] and not rounds_of().averaged

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The time, which a batch moves on by a second."""
        now = [100.0]
        monkeypatch.setattr("edgekit.runtime.rounds.time.monotonic", lambda: now[0])
        return now

    def timed(self, rounds: Rounds, clock: list[float], n: int, ends: bool) -> list[tuple[int, bool]]:
        """For each leg: how many batches, and whether a round follows."""
        legs, seen = [], []
        for leg in rounds.legs(batches(n), 1, ends, last=False):
            size = 0
            for batch in leg:
                clock[0] += 1
                size += 1
                seen.append(int(batch[0]) // 2)
            legs.append((size, rounds.due))
            if rounds.due:
                rounds.adopt(Weights(1, rounds.number + 1, b"", b""))
        assert seen == list(range(n)), "every batch once"
        return legs

    def test_by_the_clock(self, clock: list[float]) -> None:
        rounds = rounds_of(round_seconds=4.0)
        # The clock goes on over the end of an epoch.
        assert self.timed(rounds, clock, 10, ends=False) == [(4, True), (4, True), (2, False)]
        assert self.timed(rounds, clock, 10, ends=False) == [(2, True), (4, True), (4, True)]
        assert self.timed(rounds, clock, 6, ends=True) == [(4, True), (2, True)]
        assert self.timed(rounds, clock, 3, ends=True) == [(3, True)]

    def test_by_the_clock_who_rests_waits_for_the_round_and_loses_nothing(self, clock: list[float]) -> None:
        rounds = rounds_of(round_seconds=4.0, resting=True)
        assert self.timed(rounds, clock, 6, ends=False) == [(0, True), (4, True), (2, False)]


class TestWeights:
    """What a device says of its weights, and takes."""

    def test_the_update_is_what_was_learned_since_the_last_round(self) -> None:
        front = front_of(weight=1.0, mean=2.0, variance=3.0)
        rounds = rounds_of(front, round_epochs=1)
        front.state["weight"] += np.float32(0.5)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("weight", "mean", "variance"), (2,))
        change = FedAvg().unpack(rounds.update(8, 0, True).update, shapes)
        np.testing.assert_array_equal(change["weight"], [0.5, 0.5])
        np.testing.assert_array_equal(change["mean"], [0, 0])
        # The average of all devices moved less, and that is where this one goes on from.
        average = FedAvg().pack({name: np.array([0.25, -9], np.float32) for name in shapes}, np.random.default_rng(0))
        rounds.adopt(Weights(1, 1, average, b""))
        np.testing.assert_array_equal(front.state["weight"], [1.25, -7])
        np.testing.assert_allclose(front.state["variance"], [3.25, 0.6], rtol=1e-6)
        assert rounds.number == 1
        front.state["weight"] += np.float32(1)
        np.testing.assert_array_equal(FedAvg().unpack(rounds.update(8, 0, True).update, shapes)["weight"], [1, 1])

    def test_nothing_is_said_where_nothing_was_learned_or_is_averaged(self) -> None:
        assert rounds_of(round_epochs=1).update(0, 4, True).update == b"" == rounds_of().update(8, 0, True).update

    def test_a_round_without_an_update_brings_back_the_last_weights(self) -> None:
        front = front_of(weight=1.0, mean=2.0, variance=3.0)
        rounds = rounds_of(front, round_epochs=1)
        front.state["weight"] += np.float32(0.5)
        rounds.adopt(NOTHING)
        np.testing.assert_array_equal(front.state["weight"], [1, 2])

    def test_where_nothing_is_averaged_each_keeps_its_own(self) -> None:
        front = front_of(weight=1.0)
        rounds = rounds_of(front)
        front.state["weight"] += np.float32(0.5)
        rounds.adopt(NOTHING)
        np.testing.assert_array_equal(front.state["weight"], [1.5, 2.5])
        with pytest.raises(PayloadError, match="an average where front halves are not averaged"):
            rounds.adopt(Weights(1, 1, b"xxxxxxxx", b""))

    def test_local_statistics_stay_the_devices_own(self) -> None:
        front = front_of(weight=1.0, mean=2.0, variance=3.0)
        rounds = rounds_of(front, round_epochs=1, norms="local")
        for name in ("weight", "mean", "variance"):
            front.state[name] += np.float32(1)
        update = rounds.update(8, 0, True).update
        assert len(update) == 4 * 2
        rounds.adopt(Weights(1, 1, update, b""))
        rounds.adopt(
            Weights(1, 2, FedAvg().pack({"weight": np.array([7, 7], np.float32)}, np.random.default_rng(0)), b"", True)
        )
        np.testing.assert_array_equal(front.state["weight"], [7, 7])
        np.testing.assert_array_equal(front.state["mean"], [3, 5])
        np.testing.assert_array_equal(front.state["variance"], [4, 7])

    def test_whole_weights_are_taken_as_they_are(self) -> None:
        front = front_of(weight=1.0, mean=2.0, variance=3.0)
        rounds = rounds_of(front, round_epochs=1)
        whole = {name: np.array([8, 9], np.float32) for name in ("weight", "mean", "variance")}
        packed = FedAvg().pack(whole, np.random.default_rng(0))
        rounds.adopt(Weights(1, 5, packed, b"", True, True))
        assert all(front.state[name].tolist() == [8, 9] for name in whole)
        assert (rounds.number, rounds.resting) == (5, True)
        front.state["weight"] += np.float32(1)
        update = FedAvg().unpack(rounds.update(8, 0, True).update, dict.fromkeys(whole, (2,)))
        assert update["weight"].tolist() == [1, 1] and update["mean"].tolist() == [0, 0]
        late = front_of(weight=1.0, mean=2.0, variance=3.0)
        Rounds(late, WELCOME._replace(round_epochs=1, front=packed, round=5), 0)
        assert all(late.state[name].tolist() == [8, 9] for name in whole)

    @pytest.mark.parametrize("whole", [False, True])
    def test_weights_that_do_not_parse_leave_the_front_half_alone(self, whole: bool) -> None:
        front = front_of(weight=1.0, mean=2.0, variance=3.0)
        rounds = rounds_of(front, round_epochs=1)
        with pytest.raises(PayloadError):
            rounds.adopt(Weights(1, 1, b"x", b"", whole))
        np.testing.assert_array_equal(front.state["weight"], [1, 2])


def fleet(
    bundle: Bundle, digits: Dataset, policy: RoundPolicy, shares: list[int], wait: Patience | None = None, **given: Any
) -> tuple[Service, list[Device], list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Devices of so many images each, a thread for each, over one service; their events, and the service's."""
    alone = service(bundle, "none")
    told: list[dict[str, Any]] = []

    def tell(event: dict[str, Any]) -> None:
        told.append({**event, "progress": server.fleet.progress, "weights": server.rounds.weights})

    patience = wait or Patience(len(shares), 60.0, 60.0, 1.0, 60.0, 1.0)
    server = Service(alone.setup, tell, patience, policy)
    events: list[list[dict[str, Any]]] = [[] for _ in shares]
    ends = np.cumsum([0, *shares])

    def device(i: int) -> Device:
        front = FrontHalf(bundle, "onnxruntime", 1)
        settings = Options(f"device-{i}", **{"epochs": 2, "seed": i, **given})
        made = Device(front, Loopback(server.handle, Meter()), settings, events[i].append)
        rows = slice(ends[i], ends[i + 1])
        made.train(
            Images(digits.train_images[rows], digits.train_labels[rows]),
            Images(digits.test_images[i::3][:30], digits.test_labels[i::3][:30]),
        )
        return made

    with ThreadPoolExecutor(len(shares)) as pool:
        devices = [future.result(300) for future in [pool.submit(device, i) for i in range(len(shares))]]
    return server, devices, events, told


class TestFleet:
    """Several devices of one service, in threads."""

    @pytest.mark.parametrize("every", [Every(steps=2), Every(epochs=1)])
    def test_all_end_with_the_same_front_half(self, small_bundle: Bundle, digits: Dataset, every: Every) -> None:
        policy = RoundPolicy(every, FedAvg(), "mean")
        server, devices, events, told = fleet(small_bundle, digits, policy, [128, 96, 64], codebook_tolerance=0.02)
        for device in devices:
            for name, array in server.rounds.weights.items():
                np.testing.assert_array_equal(device.front.state[name], array)
            for name, array in server.rounds.tables.items():
                np.testing.assert_array_equal(device.front.tables[name], array)
        before = small_bundle.arrays("front.safetensors")
        assert not np.array_equal(server.rounds.weights["features.0.weight"], before["features.0.weight"])
        found = [event for event in told if event["event"] == "round"]
        # Four steps an epoch of the device that has most.
        assert len(found) == (4 if every.steps else 2) and {event["devices"] for event in found} == {3}
        assert sum(event["images"] for event in found) == 2 * (128 + 96 + 64)
        assert server.fleet.progress == 1.0 and server.fleet.late_updates == 0
        tests = [event for event in told if event["event"] == "tested"]
        assert [event["images"] for event in tests] == [90, 90]
        for mine in events:
            fleet_wide = [event["fleet"]["accuracy"] for event in mine if event["event"] == "epoch"]
            assert fleet_wide == [event["accuracy"] for event in tests]

    def test_by_the_clock_each_ends_with_the_weights_of_its_last_round(
        self, small_bundle: Bundle, digits: Dataset
    ) -> None:
        policy = RoundPolicy(Every(seconds=0.05), FedAvg())
        server, devices, _, told = fleet(small_bundle, digits, policy, [160, 96, 64], batch=16)
        # Who has fewer images is done earlier; the others go on.
        after = [event["weights"] for event in told if event["event"] == "round"]
        assert len(after) >= 2 and server.fleet.progress == 1.0
        for device in devices:
            own = device.front.state
            assert any(all(np.array_equal(own[name], each[name]) for name in each) for each in after)
        name = "features.0.weight"
        assert any(np.array_equal(server.rounds.weights[name], device.front.state[name]) for device in devices)

    def test_the_same_seeds_give_the_same_bits_whoever_comes_first(self, small_bundle: Bundle, digits: Dataset) -> None:
        states = []
        for _ in range(2):
            server, *_ = fleet(small_bundle, digits, RoundPolicy(Every(epochs=1), FedAvg()), [64, 48, 96], epochs=1)
            states.append({**server.rounds.weights, **server.setup.back.state_dict()})
        for name, array in states[0].items():
            np.testing.assert_array_equal(array, states[1][name])

    def test_who_rests_skips_its_batches_until_the_round(self, small_bundle: Bundle, digits: Dataset) -> None:
        policy = RoundPolicy(Every(epochs=1), FedAvg(), sampling=Sampling(0.5))
        server, devices, _, told = fleet(small_bundle, digits, policy, [64, 64], epochs=4)
        assert sum(device.session.images for device in devices) == 4 * 64
        rounds = [event for event in told if event["event"] == "round"]
        assert [event["images"] for event in rounds] == [64] * 4
        # What is skipped is no part of the run: the learning rate falls with the images that are seen.
        assert [event["progress"] for event in rounds] == pytest.approx([0.25, 0.5, 0.75, 1.0])
        for device in devices:
            np.testing.assert_array_equal(
                device.front.state["features.0.weight"], server.rounds.weights["features.0.weight"]
            )

    def test_who_comes_when_the_run_is_over_takes_the_network(
        self, small_bundle: Bundle, digits: Dataset, tmp_path: Any
    ) -> None:
        policy = RoundPolicy(Every(epochs=1), FedAvg())
        wait = Patience(3, 0.2, 60.0, 1.0, 60.0, 1.0)
        server, *_ = fleet(small_bundle, digits, policy, [64, 64], wait)
        assert server.fleet.ended == 2
        events: list[dict[str, Any]] = []
        front = FrontHalf(small_bundle, "onnxruntime", 1)
        options = Options("late", epochs=2, out=str(tmp_path))
        late = Device(front, Loopback(server.handle, Meter()), options, events.append)
        images = Images(digits.train_images[:64], digits.train_labels[:64])
        late.train(images, images)
        assert server.fleet.ended == 3 and [event["event"] for event in events] == ["connected", "done"]
        saved = tensorfile.loads((tmp_path / "front.safetensors").read_bytes())
        for name, array in server.rounds.weights.items():
            np.testing.assert_array_equal(saved[name], array)
        assert events[-1]["images"] == 0 and events[-1]["fleet"]["images"] == 64

    def test_one_grouping_for_all(self, small_bundle: Bundle, digits: Dataset) -> None:
        with pytest.raises(UsageError, match="--regroup-every: with --sync-every all devices keep one grouping"):
            fleet(small_bundle, digits, RoundPolicy(Every(epochs=1), FedAvg()), [64], regroup_every=1)


@pytest.mark.parametrize(
    ("parts", "error", "reason"),
    [
        ((b"x", b""), PayloadError, "."),
        ((b"", tensorfile.dumps({"codebook": np.zeros(3, np.float32)})), ShapeError, "order"),
        ((b"", tensorfile.dumps({})), ShapeError, "tables of"),
    ],
)
def test_a_welcome_whose_weights_or_tables_are_none(
    small_bundle: Bundle, digits: Dataset, parts: tuple[bytes, ...], error: Any, reason: str
) -> None:
    server = Service(service(small_bundle).setup, rounds=RoundPolicy(Every(epochs=1), FedAvg()))

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        return reply._replace(parts=parts) if reply.kind == "welcome" else reply

    front = FrontHalf(small_bundle, "onnxruntime", 1)
    device = Device(front, Loopback(handle, Meter()), Options("d"), lambda event: None)
    with pytest.raises(error, match=reason):
        device.session.hello(64, 2, 1)
