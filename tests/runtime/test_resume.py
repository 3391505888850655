"""Checkpoints: a server or a device that was killed goes on, and the weights are those of a run without that."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.codecs.updates.quantised import Quantised
from edgekit.data.base import Dataset
from edgekit.errors import TransportError
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.line import Reconnecting
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Grpc
from edgekit.sampling import sampling
from edgekit.saves import Saves
from edgekit.server.checkpoints import Checkpoints
from edgekit.server.listen import Listener, serve
from edgekit.server.policy import Every, Patience, RoundPolicy
from edgekit.server.service import Service
from edgekit.server.watch import Watch
from tests.runtime.loopback import coded_by, service

DEVICES = 2
PATIENT = Patience(devices=DEVICES, step_s=60.0, step_quorum=1.0, away_s=60.0, lockstep=True, joint_batch=32)
ROUNDS = RoundPolicy(Every(epochs=1), FedAvg())


class Killed(BaseException):
    """A process ends at once; nothing of it goes on."""


class Server(NamedTuple):
    service: Service
    listener: Listener
    told: list[dict[str, Any]]


def started(bundle: Bundle, folder: str, port: int = 0, resume: bool = False, rounds: RoundPolicy = ROUNDS) -> Server:
    told: list[dict[str, Any]] = []
    setup = service(bundle, "dct:bound=0.5").setup
    checkpoints = Checkpoints(Saves(folder, "server"), Every(steps=3), {})
    watch = Watch(setup.classes, setup.golden_size)
    each = Service(setup, told.append, PATIENT, rounds, watch=watch, checkpoints=checkpoints)
    if resume:
        each.recovery.go_on()
    return Server(each, serve(each, f"127.0.0.1:{port}", 8), told)


class Line(Grpc):
    """A line over which every message that a device sends is counted."""

    def __init__(self, port: int, meter: Meter, sends: Callable[[], None]) -> None:
        super().__init__(f"127.0.0.1:{port}", meter, timeout_s=60.0)
        self._sends = sends

    def _send(self, data: bytes) -> None:
        super()._send(data)
        self._sends()


class Fleet:
    """Two devices in threads, which start again when they are killed, as a board's unit would have it.

    `sends` is called with a device's name and how many messages it has sent, and may raise `Killed`.
    """

    def __init__(
        self,
        bundle: Bundle,
        digits: Dataset,
        port: int,
        folder: Path,
        sends: Callable[[str, int], None],
        **options: Any,
    ) -> None:
        self.bundle, self.digits, self.port, self.folder, self.sends = bundle, digits, port, folder, sends
        self.options = options
        self.sent = {f"d{index}": 0 for index in range(DEVICES)}
        self.events: dict[str, list[str]] = {name: [] for name in self.sent}
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(index,), daemon=True) for index in range(DEVICES)]
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(300)
            assert not thread.is_alive(), "a device hangs"
        assert not self.errors

    def _run(self, index: int) -> None:
        while True:
            try:
                return self._once(index, f"d{index}")
            except (Killed, TransportError):
                continue
            except BaseException as error:
                self.errors.append(error)
                raise

    def _once(self, index: int, name: str) -> None:
        meter = Meter()

        def sends() -> None:
            self.sent[name] += 1
            self.sends(name, self.sent[name])

        def connect() -> Line:
            return Line(self.port, meter, sends)

        def tell(event: dict[str, Any]) -> None:
            self.events[name].append(event["event"])

        share = slice(index * 96, (index + 1) * 96)
        with contextlib.ExitStack() as stack:
            front = stack.enter_context(contextlib.closing(FrontHalf(self.bundle, "onnxruntime", 1)))
            line = Reconnecting(connect, connect(), 60.0, tell)
            stack.callback(line.close)
            options = Options(
                name, epochs=3, seed=index, batch=16, out=str(self.folder / name), resume=True, **self.options
            )
            Device(front, line, options, tell).train(
                Images(self.digits.train_images[share], self.digits.train_labels[share]),
                Images(self.digits.test_images[:40], self.digits.test_labels[:40]),
            )


def weights(server: Server, folder: Path) -> dict[str, np.ndarray]:
    """All weights and tables after a run: the server's, and what the devices kept."""
    found = dict(server.service.setup.back.state_dict())
    for index in range(DEVICES):
        for half in ("front", "tables"):
            with open(folder / f"d{index}" / f"{half}.safetensors", "rb") as file:
                found.update({f"d{index}.{key}": array for key, array in tensorfile.loads(file.read()).items()})
    return found


@pytest.fixture(scope="module")
def bundle(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return coded_by("temporal", small_bundle, tmp_path_factory.mktemp("coded"))


class Sound(NamedTuple):
    """A run in which nobody is killed: what comes of it, and how many messages a device sends."""

    weights: dict[str, np.ndarray]
    sent: int
    rounds: RoundPolicy
    options: dict[str, Any]


def sound_run(bundle: Bundle, digits: Dataset, folder: Path, rounds: RoundPolicy = ROUNDS, **options: Any) -> Sound:
    server = started(bundle, str(folder / "server"), rounds=rounds)
    fleet = Fleet(bundle, digits, server.listener.port, folder, lambda name, n: None, **options)
    fleet.join()
    server.listener.stop(5.0)
    labels = [event["label"] for event in server.told if event["event"] == "checkpoint"]
    assert labels == list(range(1, len(labels) + 1)) and len(labels) > 3
    return Sound(weights(server, folder), fleet.sent["d1"], rounds, options)


@pytest.fixture(scope="module")
def sound(bundle: Bundle, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return sound_run(bundle, digits, tmp_path_factory.mktemp("sound"))


def same(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(array, found[name], name)


def killed_device(bundle: Bundle, digits: Dataset, sound: Sound, folder: Path, share: float) -> dict[str, np.ndarray]:
    """What comes of a run in which a device is killed after `share` of its messages."""
    at = max(round(share * sound.sent), 1)

    def kill(name: str, sent: int) -> None:
        if name == "d1" and sent == at:
            raise Killed

    server = started(bundle, str(folder / "server"), rounds=sound.rounds)
    fleet = Fleet(bundle, digits, server.listener.port, folder, kill, **sound.options)
    fleet.join()
    server.listener.stop(5.0)
    return weights(server, folder)


def killed_server(bundle: Bundle, digits: Dataset, sound: Sound, folder: Path, share: float) -> dict[str, np.ndarray]:
    """What comes of a run whose server is killed when a device has sent `share` of its messages."""
    at, reached = max(round(share * sound.sent), 1), threading.Event()

    def reach(name: str, sent: int) -> None:
        if name == "d1" and sent == at:
            reached.set()

    server = started(bundle, str(folder / "server"), rounds=sound.rounds)
    fleet = Fleet(bundle, digits, server.listener.port, folder, reach, **sound.options)
    assert reached.wait(300)
    server.listener.stop(0)
    again = started(bundle, str(folder / "server"), server.listener.port, resume=True, rounds=sound.rounds)
    fleet.join()
    again.listener.stop(5.0)
    return weights(again, folder)


Kill = Callable[[Bundle, Dataset, Sound, Path, float], dict[str, np.ndarray]]
kills = pytest.mark.parametrize("kill", [killed_device, killed_server])


@kills
@pytest.mark.parametrize("share", [0.0, 0.08, 0.3, 0.55, 0.97, 1.0])
def test_who_is_killed_goes_on(
    bundle: Bundle, digits: Dataset, sound: Sound, tmp_path: Path, kill: Kill, share: float
) -> None:
    same(sound.weights, kill(bundle, digits, sound, tmp_path, share))


@pytest.mark.parametrize(
    ("rounds", "options"),
    [
        (ROUNDS, {"in_flight": 2}),
        # One device sits each round out, and waits for the next one, when all are to save.
        (RoundPolicy(Every(epochs=1), Quantised(), sampling=sampling("static:0.5")), {}),
        (RoundPolicy(Every(), FedAvg()), {"regroup_every": 1}),
        (RoundPolicy(Every(steps=3), Quantised(1), layers="last:1", down=FedAvg()), {"evaluate_every": 3}),
    ],
)
def test_however_it_trains(
    bundle: Bundle, digits: Dataset, tmp_path: Path, rounds: RoundPolicy, options: dict[str, Any]
) -> None:
    expected = sound_run(bundle, digits, tmp_path / "sound", rounds, **options)
    for i, kill in enumerate((killed_device, killed_server)):
        same(expected.weights, kill(bundle, digits, expected, tmp_path / str(i), 0.6))


@pytest.mark.parametrize("whose", ["server", "d1"])
def test_a_full_disk_leaves_the_checkpoint_before(
    bundle: Bundle, digits: Dataset, sound: Sound, tmp_path: Path, whose: str
) -> None:
    folder = tmp_path / whose / "checkpoint"
    folder.mkdir(parents=True)
    for label in range(3, 100):
        (folder / f"{label:06d}.state.new").symlink_to("/dev/full")
    at, server = round(0.8 * sound.sent), started(bundle, str(tmp_path / "server"))

    def kill(name: str, sent: int) -> None:
        if name == "d1" and sent == at:
            raise Killed

    fleet = Fleet(bundle, digits, server.listener.port, tmp_path, kill)
    fleet.join()
    server.listener.stop(5.0)
    assert [event["label"] for event in server.told if event["event"] == "went_back"] == [2]
    told = [event["event"] for event in server.told] if whose == "server" else fleet.events[whose]
    assert "not_kept" in told
    same(sound.weights, weights(server, tmp_path))
