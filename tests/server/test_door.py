"""Real certificates and real gRPC over loopback: who is let in, who is not, and who is turned out."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.codecs.features.raw import Raw
from edgekit.errors import IdentityError, Refused, TransportError
from edgekit.identity import authority, layout
from edgekit.line.messages import Bye, Codebook, Hello, Ping, Pong, Resume, Resumed, Welcome
from edgekit.line.meter import Meter
from edgekit.runtime.identity.folder import Identity, open_identity
from edgekit.runtime.line import Reconnecting
from edgekit.runtime.transport import Grpc
from edgekit.server import door as doors
from edgekit.server.calibrate import calibrator
from edgekit.server.door import Door
from edgekit.server.handshakes import Handshakes
from edgekit.server.listen import serve
from edgekit.server.policy import Patience
from edgekit.server.service import Service
from edgekit.server.setup import Setup
from edgekit.server.train import BackHalf, OptimizerConfig
from tests.enrolled import Enrolled


def hello(name: str) -> Hello:
    return Hello("b", name, 2, 1, 1)


class Place:
    """A server that takes enrolled devices alone."""

    def __init__(self, enrolled: Enrolled, archives: Any, devices: int | None = None) -> None:
        optimizer = OptimizerConfig()
        train, evaluation, state = archives
        back = BackHalf.from_programs(train, evaluation, state, torch.device("cpu"), optimizer)
        setup = Setup("b", Raw(), {}, (8, 4, 4), 3, back, calibrator("none", 0), optimizer, "constant")
        self.enrolled = enrolled
        self.events: list[dict[str, Any]] = []
        patience = (
            Patience(round_s=0.0, round_quorum=0.0, away_s=60.0)
            if devices is None
            else Patience(devices=devices, start_s=300)
        )
        self.service = Service(setup, self.events.append, patience)
        self.listener = serve(self.service, "127.0.0.1:0", 8, door=Door(enrolled.folder, self.events.append))
        self.address = f"127.0.0.1:{self.listener.port}"
        self._open = contextlib.ExitStack()

    def connect(self, identity: Identity | None) -> Grpc:
        """A line that the test closes."""
        return Grpc(self.address, Meter(), identity=identity)

    def line(self, identity: Identity | None) -> Grpc:
        return self._open.enter_context(contextlib.closing(self.connect(identity)))

    def joined(self, name: str) -> Grpc:
        line = self.line(self.enrolled.identity(name))
        line.send(hello(name))
        assert line.expect(Welcome).session
        return line

    def refused(self) -> list[str]:
        return [event["reason"] for event in self.events if event["event"] == "refused"]

    def close(self) -> None:
        self._open.close()
        self.listener.stop(0)


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    return Enrolled(tmp_path)


@pytest.fixture
def place(enrolled: Enrolled, archives: Any) -> Iterator[Place]:
    made = Place(enrolled, archives)
    yield made
    made.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_enrolled_device_joins_and_is_who_its_certificate_says(place: Place) -> None:
    line = place.joined("Gärtner + Söhne/1=2, x")
    line.send(Bye(1))
    assert line.recv().kind == "ack"
    assert place.service.fleet.finished == {"Gärtner + Söhne/1=2, x"} and place.refused() == []


def test_a_hello_of_another_name_is_refused_and_told(place: Place) -> None:
    line = place.line(place.enrolled.identity("left"))
    line.send(hello("right"))
    with pytest.raises(IdentityError, match="says that it is 'right', its certificate that it is 'left'"):
        line.recv()
    assert not place.service.fleet.sessions and "'right'" in place.refused()[0]


def test_the_newer_of_two_devices_of_one_name_is_refused_and_told(place: Place) -> None:
    place.joined("twin")
    (folder,) = place.enrolled.place.glob("device-*")
    newer = place.line(open_identity(str(folder)))
    newer.send(hello("twin"))
    with pytest.raises(Refused, match="a device named twin is in training"):
        newer.recv()
    assert len(place.service.fleet.sessions) == 1


def test_a_session_goes_on_over_a_line_of_the_same_certificate_alone(place: Place) -> None:
    """The token that Welcome gives is not enough."""
    first = place.connect(place.enrolled.identity("moves"))
    first.send(hello("moves")._replace(window=1))
    welcome = first.expect(Welcome)
    assert welcome.token
    thief = place.line(place.enrolled.identity("thief"))
    thief.send(Resume(welcome.session, 0, welcome.token))
    with pytest.raises(IdentityError, match="says that it is 'moves', its certificate that it is 'thief'"):
        thief.recv()
    first.close()
    again = place.line(open_identity(str(place.enrolled.place / "device-1")))
    again.send(Resume(welcome.session, 0, welcome.token))
    assert again.expect(Resumed).session == welcome.session


def test_revoked_in_a_session_that_would_come_back(place: Place) -> None:
    """Its messages have numbers, and so has the error: another would be a damaged frame, after which it comes back."""
    events: list[dict[str, Any]] = []
    identity = place.enrolled.identity("numbered")
    lines: list[Grpc] = []

    def connect() -> Grpc:
        lines.append(place.connect(identity))
        return lines[-1]

    line = Reconnecting(connect, connect(), 60.0, events.append)
    line.send(hello("numbered")._replace(window=4))
    welcome = line.expect(Welcome)
    line.begin(welcome.session, welcome.token)
    authority.revoke(place.enrolled.folder, "numbered")
    wait_until(lambda: "numbered" in place.service.fleet.lost)
    with pytest.raises(IdentityError, match="numbered was revoked"), line:
        line.send(Codebook(welcome.session, 1, b""))
        line.recv()
    assert events == [] and len(lines) == 1


def test_revoked_while_connected(place: Place) -> None:
    """Its session ends within seconds, its next message brings the reason, and the others go on."""
    line, other = place.joined("gone"), place.joined("stays")
    authority.revoke(place.enrolled.folder, "gone")
    begun = time.monotonic()
    wait_until(lambda: "gone" in place.service.fleet.lost)
    assert time.monotonic() - begun < 60
    line.send(Ping(1))
    with pytest.raises(IdentityError, match=r"the server refused: the certificate of gone was revoked on 20.*new key"):
        line.recv()
    wait_until(lambda: len(place.refused()) == 1)
    other.send(Ping(1))
    assert other.expect(Pong, 1).devices == 1
    again = place.line(open_identity(str(place.enrolled.place / "device-1")))  # the first after the server's
    with pytest.raises(IdentityError, match="gone was revoked"):
        again.recv()


def test_revoked_while_it_waits_for_others(enrolled: Enrolled, archives: Any) -> None:
    """It is told at once: the wait itself ends."""
    place = Place(enrolled, archives, devices=2)
    line = place.line(enrolled.identity("early"))
    line.send(hello("early"))
    wait_until(lambda: place.service._gate.names() == ["early"])
    authority.revoke(enrolled.folder, "early")
    with pytest.raises(IdentityError, match="early was revoked"):
        line.recv()
    wait_until(lambda: place.service._gate.names() == [])
    place.close()


def test_a_revoked_stream_that_stays_silent_is_cut(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "GRACE_S", 0.1)
    line = place.joined("silent")
    authority.revoke(place.enrolled.folder, "silent")
    with pytest.raises(TransportError, match="CANCELLED"):
        line.recv()
    wait_until(lambda: len(place.refused()) == 1)


def test_a_certificate_that_the_register_does_not_have(place: Place) -> None:
    identity = place.enrolled.identity("lost")
    layout.write(place.enrolled.folder, layout.REGISTER, b"[]")
    with pytest.raises(IdentityError, match="lost is not in this server's register"):
        place.line(identity).recv()


def test_a_register_that_is_damaged_changes_nothing(place: Place) -> None:
    line = place.joined("stays")
    layout.write(place.enrolled.folder, layout.REGISTER, b"[")
    wait_until(lambda: any(event["event"] == "warned" for event in place.events))
    (warned,) = (event for event in place.events if event["event"] == "warned")
    assert "register.json does not parse" in warned["warning"]
    line.send(Ping(1))
    assert line.expect(Pong, 1).devices == 1
    os.remove(os.path.join(place.enrolled.folder, layout.REGISTER))
    wait_until(lambda: len([event for event in place.events if event["event"] == "warned"]) == 2)
    line.send(Ping(2))
    assert line.expect(Pong, 2).devices == 1


def test_a_server_whose_own_certificate_has_ended_does_not_start(enrolled: Enrolled) -> None:
    authority.init(enrolled.folder, [], days=-0.5)
    with pytest.raises(IdentityError, match=r"server\.pem ended on 20.*`edgekit enroll init .*--host"):
        Door(enrolled.folder)
    authority.init(enrolled.folder, [])
    os.chmod(os.path.join(enrolled.folder, layout.SERVER_KEY), 0o644)
    with pytest.raises(IdentityError, match=r"server\.key can be read by others: chmod 600"):
        Door(enrolled.folder)


def test_handshakes_that_fail_become_events_with_their_reasons(
    place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What gRPC tells nobody but standard error; everything else there stays where it was."""
    (tmp_path / "another").mkdir()
    other = Enrolled(tmp_path / "another")
    events: list[dict[str, Any]] = []
    with Handshakes(events.append):
        os.write(2, b"words of another\n")
        with pytest.raises(IdentityError, match="takes enrolled devices alone"):
            place.line(None)
        stranger = other.device("stranger")
        (stranger / "ca.pem").write_bytes(Path(place.enrolled.folder, "ca.pem").read_bytes())
        with pytest.raises(IdentityError, match="turns the certificate of stranger away"):
            place.line(Identity(str(stranger), "stranger"))
        old = place.enrolled.device("old", days=-0.5)
        with pytest.raises(IdentityError, match="turns the certificate of old away"):
            place.line(Identity(str(old), "old"))
        with pytest.raises(IdentityError, match=r"cannot be trusted.*enrolled by another"):
            place.line(Identity(str(other.device("lost")), "lost"))
        wait_until(lambda: len({event["reason"] for event in events}) >= 4)
    assert capfd.readouterr().err == "words of another\n"
    reasons = " | ".join(event["reason"] for event in events)
    for expected in ("spoke no TLS", "has no certificate", "unable to get local issuer certificate", "has expired"):
        assert expected in reasons
    assert json.dumps(events) and not any("PRIVATE" in event["reason"] for event in events)
