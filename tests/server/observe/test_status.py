"""What is seen of a service, from its own batches and events."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import edgekit
from edgekit.line.frame import Message
from edgekit.server.observe.sight import Seen, Sight
from edgekit.server.observe.status import STATES, Status, looker
from edgekit.server.policy import Patience
from edgekit.server.service import Service
from tests.server.lines import wait_until
from tests.server.talk import CODEC, feature, greeting, hello


class Watched:
    """A service of two devices in step, watched; `look` gives its status."""

    def __init__(self, service: Service, patience: Patience | None = None, most: int = 64) -> None:
        patience = patience or Patience(step_s=300.0, step_quorum=1.0, away_s=300.0)
        self.service = Service(service.setup, patience=patience)
        self.sight = Sight(CODEC, most)
        self.service.on_event, self.service.steps.on_batch = self.sight.event, self.sight.batch
        self.look: Callable[[], Status] = looker(self.service, self.sight, "abcd", patience.devices)
        self._threads: list[threading.Thread] = []

    def aside(self, message: Message) -> None:
        """Sends `message`, whose answer comes when other devices are there."""
        self._threads.append(threading.Thread(target=self.service.handle, args=(message,)))
        self._threads[-1].start()

    def answered(self) -> None:
        """Waits until all that were sent aside have their answers: only then may their devices say more."""
        for thread in self._threads:
            thread.join(300)
            assert not thread.is_alive()

    def states(self) -> dict[str, str]:
        return {device["name"]: device["state"] for device in self.look()["devices"]}

    def end(self) -> None:
        for number in list(self.service.fleet.sessions):
            self.service.end(number)
        self.answered()


@pytest.fixture
def watched(make: Callable[..., Service]) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def watch(*given: Any, **named: Any) -> Watched:
        made.append(Watched(make(), *given, **named))
        return made[-1]

    yield watch
    for each in made:
        each.end()


def test_a_run_that_has_not_begun(watched: Callable[..., Watched]) -> None:
    status = watched().look()
    assert (status["edgekit"], status["run"], status["stopping"]) == (edgekit.__version__, "abcd", False)
    assert status["states"] == dict.fromkeys(STATES, 0) and status["devices"] == status["waited_for"] == []
    assert status["loss"] is status["rate"] is status["last_step"] is status["tested"] is None
    assert status["progress"] == status["steps"] == status["images"] == 0
    assert json.loads(json.dumps(status, allow_nan=False)) == status
    assert status["time"].startswith("20") and status["time"].endswith("Z")


def test_batches_are_counted_and_their_seconds_split(watched: Callable[..., Watched]) -> None:
    one = watched()
    session, before = hello(one.service, "a"), time.time()
    started = time.perf_counter()
    replies = [one.service.handle(feature(session, step)) for step in range(3)]
    took = time.perf_counter() - started
    status = one.look()
    assert (status["batches"], status["batches_left_out"], status["steps"], status["images"]) == (3, 0, 3, 36)
    assert status["images_right"] == sum(reply.header["right"] for reply in replies)
    assert status["rate"] == pytest.approx(0.1) and status["progress"] == pytest.approx(0.03)
    assert before <= status["last_step"] <= status["now"]
    (device,) = status["devices"]
    assert (device["name"], device["state"], device["step"], device["images"]) == ("a", "training", 3, 36)
    assert device["loss"] == status["loss"] and device["codebook"]["used"] > 0.5 and device["behind"] == 0
    losses = [reply.header["loss"] for reply in replies]
    assert status["loss"] == pytest.approx(0.9 * (0.9 * losses[0] + 0.1 * losses[1]) + 0.1 * losses[2], abs=1e-5)
    spent = {part: spread["sum"] for part, spread in status["seconds"].items()}
    assert {spread["count"] for spread in status["seconds"].values()} == {3}
    own = sum(reply.header["s"] for reply in replies)
    assert spent["decode"] + spent["train"] + spent["encode"] == pytest.approx(own, abs=1e-4)
    assert own <= sum(spent.values()) <= took + 1e-4
    assert min(spent["decode"], spent["train"], spent["encode"]) > 0


def test_who_waits_and_who_is_waited_for(watched: Callable[..., Watched]) -> None:
    one = watched()
    a, b = hello(one.service, "a"), hello(one.service, "b")
    assert one.look()["waited_for"] == []
    one.aside(feature(a, 0))
    wait_until(lambda: one.states()["a"] == "waits_step")
    status = one.look()
    assert status["waited_for"] == ["b"] and status["states"]["waits_step"] == status["states"]["training"] == 1
    one.service.use(b, "a line")
    # A line that may not come back ends the session; this one may.
    one.service._lines._held[b].token = "token"
    one.service.broke(b, "a line")
    status = one.look()
    assert one.states()["b"] == "away" and status["waited_for"] == ["b"] and status["events"]["away"] == 1


def test_devices_that_test_hold_the_others_up(watched: Callable[..., Watched]) -> None:
    one = watched()
    a, b = hello(one.service, "a"), hello(one.service, "b")
    for session in (a, b):
        one.aside(Message("update", session, 0, {"n": 0, "left": 12, "test": session == b}, (b"",)))
    one.answered()
    assert one.states() == {"a": "training", "b": "testing"}
    one.aside(feature(a, 0))
    wait_until(lambda: one.states()["a"] == "waits_step")
    assert one.look()["waited_for"] == ["b"]


def test_devices_that_wait_to_join(watched: Callable[..., Watched]) -> None:
    one = watched(Patience(devices=2, start_s=300.0))
    one.aside(greeting(one.service, "a"))
    wait_until(lambda: one.look()["joining"] == ["a"])
    status = one.look()
    assert status["states"]["joining"] == 1 and status["devices_expected"] == 2 and status["devices"] == []
    one.aside(greeting(one.service, "b"))
    wait_until(lambda: one.states() == {"a": "training", "b": "training"})


def test_how_far_a_device_is_behind_and_that_it_is_late(watched: Callable[..., Watched]) -> None:
    one = watched(Patience(step_s=0.01, step_quorum=0.5, lockstep=True))
    a, b = hello(one.service, "a"), hello(one.service, "b")
    for step in range(3):
        assert one.service.handle(feature(a, step)).kind == "gradient"
    status = one.look()
    assert {device["name"]: device["behind"] for device in status["devices"]} == {"a": 0, "b": 3}
    assert one.states()["b"] == "late" and status["steps_without_some"] == 3
    assert one.service.fleet.sessions[b].step == 0


def test_devices_that_left_are_kept_by_what_they_came_to(watched: Callable[..., Watched]) -> None:
    one = watched()
    a, b, c = (hello(one.service, name) for name in "abc")
    one.service.handle(Message("bye", a))
    one.service.end(b)
    with one.service._lock:
        one.service._run._quarantine(one.service.fleet.sessions[c], "noise")
    status = one.look()
    assert one.states() == {"a": "finished", "b": "lost", "c": "quarantined"}
    assert [device.get("reason") for device in status["devices"]] == [None, None, "noise"]
    assert {state: n for state, n in status["states"].items() if n} == {"finished": 1, "lost": 1, "quarantined": 1}
    assert "left" not in status["devices"][0]
    assert status["events"]["left"] == 3 and status["events"]["quarantined"] == 1


def test_devices_of_the_run_before_are_still_known(watched: Callable[..., Watched]) -> None:
    one = watched(Patience(devices=1))
    one.service.handle(Message("bye", hello(one.service, "a")))
    assert one.service.fleet.finished == {"a"}
    hello(one.service, "b")
    assert one.service.fleet.finished == set(), "another run has begun"
    assert one.states() == {"b": "training", "a": "finished"} and one.look()["states"]["finished"] == 1


def test_old_names_are_forgotten_those_present_never(watched: Callable[..., Watched]) -> None:
    one = watched(most=3)
    stays = hello(one.service, "stays")
    for name in "abcdef":
        one.service.end(hello(one.service, name))
    assert list(one.states()) == ["stays", "e", "f"]
    assert one.look()["states"]["lost"] == 6, "their number is known"
    later = [hello(one.service, name) for name in "ghij"]
    assert [name for name in one.states() if name in "abcdef"] == []
    assert {"stays", *"ghij"} == set(one.states()) and stays and later


def test_a_device_that_comes_again_goes_on_counting(watched: Callable[..., Watched]) -> None:
    one = watched()
    first = hello(one.service, "a")
    one.service.handle(feature(first, 0))
    one.service.end(first)
    again = hello(one.service, "a")
    one.service.handle(feature(again, 0))
    (device,) = one.look()["devices"]
    assert (device["images"], device["batches"], device["step"]) == (24, 2, 1)


def test_a_test_is_told_until_the_next(watched: Callable[..., Watched]) -> None:
    one = watched()
    event = {"event": "tested", "epoch": 2, "accuracy": 50.0, "test_loss": 1.0, "images": 4, "devices": 1, "best": True}
    one.sight.event(event)
    one.sight.event({"event": "listening", "port": 1})
    status = one.look()
    assert status["tested"] == {key: value for key, value in event.items() if key != "event"}
    assert status["events"]["tested"] == status["events"]["listening"] == 1 and status["events"]["away"] == 0


def test_nothing_seen_is_what_a_device_begins_with() -> None:
    assert Seen().told()["heard"] is None and Seen().told()["codebook"] is None


def test_looking_needs_no_lock(watched: Callable[..., Watched]) -> None:
    one = watched()
    hello(one.service, "a")
    with one.service._lock:
        assert one.states() == {"a": "training"}
