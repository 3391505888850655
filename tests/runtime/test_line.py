"""A line that breaks: the session goes on over another one, nothing is lost and nothing done twice."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle
from edgekit.data.base import Dataset
from edgekit.errors import Diverged, Refused, TransportError
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.line import Reconnecting
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Grpc
from edgekit.server.handlers import training
from edgekit.server.listen import Listener, serve
from edgekit.server.modes import FleetSettings
from edgekit.server.policy import Patience, RoundPolicy
from edgekit.server.service import ALONE, Service
from tests.faults import KINDS, Fault, FaultyProxy, draw
from tests.runtime.loopback import coded_by, service

PATIENT = Patience(devices=1, step_s=60.0, step_quorum=1.0, away_s=60.0)


@contextlib.contextmanager
def listening(
    setup: Any, patience: Patience = PATIENT, rounds: RoundPolicy = ALONE
) -> Iterator[tuple[Service, Listener, list[dict[str, Any]]]]:
    events: list[dict[str, Any]] = []
    server = Service(setup, events.append, patience, rounds)
    listener = serve(server, "127.0.0.1:0", 4)
    try:
        yield server, listener, events
    finally:
        listener.stop(0)


def run(
    bundle: Bundle,
    digits: Dataset,
    port: int,
    reconnect_s: float = 60.0,
    on_broken: Callable[[], None] = lambda: None,
    name: str = "d",
    own: slice = slice(160),
) -> tuple[Device, list[dict[str, Any]]]:
    """A device that trains over `port` on its `own` images; its events. `on_broken` is called before it tries to come
    back."""
    events: list[dict[str, Any]] = []
    meter = Meter()

    def connect() -> Grpc:
        return Grpc(f"127.0.0.1:{port}", meter, timeout_s=60.0)

    def tell(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "broken":
            on_broken()

    with (
        contextlib.closing(FrontHalf(bundle, "onnxruntime", 1)) as front,
        Reconnecting(connect, connect(), reconnect_s, tell) as line,
    ):
        device = Device(front, line, Options(name, epochs=2, in_flight=2), events.append)
        device.train(
            Images(digits.train_images[own], digits.train_labels[own]),
            Images(digits.test_images[:90], digits.test_labels[:90]),
        )
    return device, events


def weights(server: Service, device: Device) -> dict[str, np.ndarray]:
    return {**server.setup.back.state_dict(), **device.front.state, **device.front.tables}


@pytest.fixture(scope="module")
def bundle(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return coded_by("temporal", small_bundle, tmp_path_factory.mktemp("coded"))


@pytest.fixture(scope="module")
def sound(bundle: Bundle, digits: Dataset) -> dict[str, np.ndarray]:
    """What comes of the training over a sound line."""
    with listening(service(bundle).setup) as (server, listener, _):
        device, _ = run(bundle, digits, listener.port)
        return weights(server, device)


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_whatever_happens_to_the_line(
    bundle: Bundle, digits: Dataset, sound: dict[str, np.ndarray], kind: str, way: str
) -> None:
    with listening(service(bundle).setup) as (server, listener, told):
        faults = [Fault(kind, way, after) for after in (1500, 6000, 2500, 9000)]
        with contextlib.closing(FaultyProxy(f"127.0.0.1:{listener.port}", faults)) as proxy:
            device, events = run(bundle, digits, proxy.port)
        assert proxy.done
        if kind in ("cut", "truncate"):
            # A line may break again before it is resumed, and come back before the server sees that it broke.
            assert 1 <= names(events).count("resumed") <= len(proxy.done)
            away, back = (names(told).count(name) for name in ("away", "back"))
            assert 1 <= back <= len(proxy.done) and away <= back
        assert names(told).count("joined") == names(told).count("left") == 1 and told[-1]["finished"]
        for name, array in sound.items():
            np.testing.assert_array_equal(array, weights(server, device)[name], name)


def fleet(
    bundle: Bundle, digits: Dataset, mode: str, faults: list[Fault], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, np.ndarray], list[tuple[str, int]], int]:
    """Four devices that meet `faults`: the back half and all front halves, which device's batches were learned from by
    their numbers, and how many faults came about."""
    applied: list[tuple[str, int]] = []
    train = training.train

    def recorded(*given: Any) -> list[training.Learned]:
        learned = train(*given)
        applied.extend((each.work.session.device, each.work.message.step) for each in learned if each.outcome)
        return learned

    monkeypatch.setattr(training, "train", recorded)
    settings = FleetSettings(mode, step_wait=60.0 if mode == "sync" else None)
    with (
        listening(service(bundle).setup, settings.patience(4), settings.rounds(4)) as (server, listener, told),
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor(4) as pool,
    ):
        proxies = [FaultyProxy(f"127.0.0.1:{listener.port}", faults[i::4]) for i in range(4)]
        for proxy in proxies:
            stack.callback(proxy.close)
        made = [
            pool.submit(run, bundle, digits, proxy.port, name=f"d{i}", own=slice(160 * i, 160 * (i + 1)))
            for i, proxy in enumerate(proxies)
        ]
        devices = [each.result()[0] for each in made]
        assert names(told).count("left") == names(told).count("joined"), told
        kept = dict(server.setup.back.state_dict())
        for device in devices:
            ends = {**device.front.state, **device.front.tables}
            kept.update({f"{device.options.name}/{name}": array for name, array in ends.items()})
        return kept, applied, sum(len(proxy.done) for proxy in proxies)


@pytest.mark.parametrize("seed", [0])
def test_a_fleet_that_meets_a_dozen_faults(
    bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """``bench/faults.py`` does the same with real processes and some hundred faults."""
    faults = draw(seed, 24, 8000)
    expected, _, _ = fleet(bundle, digits, "sync", [], monkeypatch)
    for mode in ("sync", "async"):
        kept, applied, came = fleet(bundle, digits, mode, faults, monkeypatch)
        assert came >= 12, (seed, came)
        for name in ("d0", "d1", "d2", "d3"):
            own = [step for device, step in applied if device == name]
            assert own == list(range(len(own))) and len(own) >= 10, (mode, name, own)
        if mode == "sync":
            for name, array in expected.items():
                np.testing.assert_array_equal(array, kept[name], f"seed {seed}: {name}")


def test_a_line_that_stays_away_is_an_error_that_says_both_reasons(bundle: Bundle, digits: Dataset) -> None:
    with listening(service(bundle).setup) as (server, listener, _):
        proxy = FaultyProxy(f"127.0.0.1:{listener.port}", [])

        def cut(event: dict[str, Any]) -> None:
            if event["event"] == "joined":
                proxy.close()

        server.on_event = cut
        with pytest.raises(TransportError, match=r"did not come back within 1 s"):
            run(bundle, digits, proxy.port, reconnect_s=1.0)


def test_without_a_time_to_come_back_a_broken_line_ends_the_session(bundle: Bundle, digits: Dataset) -> None:
    with listening(service(bundle).setup, PATIENT._replace(away_s=0.0)) as (server, listener, told):
        proxy = FaultyProxy(f"127.0.0.1:{listener.port}", [Fault("cut", "up", 3000)])
        with pytest.raises(TransportError):
            run(bundle, digits, proxy.port, reconnect_s=0.0)
        wait(lambda: len(told) > 1)
        assert names(told) == ["joined", "left"] and server.fleet.lost == {"d"}


def test_a_session_that_was_away_for_too_long_is_refused(bundle: Bundle, digits: Dataset) -> None:
    with listening(service(bundle).setup, PATIENT._replace(away_s=0.01)) as (_, listener, told):
        proxy = FaultyProxy(f"127.0.0.1:{listener.port}", [Fault("cut", "up", 3000)])
        with pytest.raises(TransportError, match="away for too long"):
            run(bundle, digits, proxy.port, reconnect_s=1.0, on_broken=lambda: wait(lambda: names(told)[-1] == "left"))


def test_who_gives_up_says_so(bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekit.runtime.loop.tested_after", stopped)
    with listening(service(bundle).setup) as (server, listener, told):
        with pytest.raises(KeyboardInterrupt):
            run(bundle, digits, listener.port)
        assert server.fleet.lost == {"d"}, "at once, and not in a minute"
        assert told[-1]["event"] == "left" and not told[-1]["finished"]


def test_an_answer_that_is_an_error_is_counted_and_nobody_waits_for_who_got_it(
    bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(service(bundle).setup) as (server, listener, told):

        def diverged(*arguments: Any) -> None:
            raise Diverged("the loss is nan")

        monkeypatch.setattr(server.setup.back, "step", diverged)
        with pytest.raises(Diverged, match="the loss is nan"):
            run(bundle, digits, listener.port)
        assert server.fleet.lost == {"d"} and not server.fleet.sessions
        assert told[-1]["event"] == "left" and not told[-1]["finished"]


def test_a_server_that_fails_is_not_asked_again(
    bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(service(bundle).setup) as (server, listener, _):

        def broken(*arguments: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(server.setup.back, "step", broken)
        with pytest.raises(Refused, match="failed while it answered"):
            run(bundle, digits, listener.port)


def test_the_answer_to_the_goodbye_may_be_lost(
    bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(service(bundle).setup) as (server, listener, told):
        proxies = [FaultyProxy(f"127.0.0.1:{listener.port}", [])]

        def cut(event: dict[str, Any]) -> None:
            told.append(event)
            if event["event"] == "left":
                proxies[0].break_all()

        server.on_event = cut
        _, events = run(bundle, digits, proxies[0].port)
        assert names(events)[-2:] == ["resumed", "done"] and server.fleet.finished == {"d"}


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)
