"""Rounds at the server: what becomes of updates and codebooks, and that both sides come to the same bits."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from edgekit import statefile, tensorfile
from edgekit.codecs.registry import parse_update_codec
from edgekit.codecs.updates.flat import shapes_of
from edgekit.errors import PayloadError, Refused, UnknownName, UsageError
from edgekit.line.frame import Message
from edgekit.line.messages import Update
from edgekit.moves import moved
from edgekit.sampling import Sampling
from edgekit.server.policy import Every, Patience, RoundPolicy, parse_every
from edgekit.server.rounds import Rounds
from edgekit.server.service import Service
from tests.server.averaging import CODED, EPOCH, FRONT, LEARNED, SETUP, STATISTICS, Line, change, packed
from tests.server.talk import CODEC, TABLES, feature, greeting, hello, refusal


def test_the_average_is_weighted_by_images_and_devices_come_to_the_same_bits() -> None:
    line = Line()
    line.close([0.3, 0.7], [30, 10])
    np.testing.assert_allclose(line.rounds.weights["conv.weight"], FRONT["conv.weight"] + 0.4, rtol=1e-6)
    line.close([0.1, -0.2], [7, 13])
    assert line.rounds.number == 2 and set(line.weights) == set(line.rounds.weights)
    for name, array in line.rounds.weights.items():
        np.testing.assert_array_equal(line.weights[name], array)
    np.testing.assert_array_equal(FRONT["conv.weight"], [[1, 2], [3, 4]], "the bundle's stay")


def test_who_learned_nothing_has_no_part_in_the_average() -> None:
    line = Line()
    assert line.close([0.5, None], [30, 0])
    np.testing.assert_array_equal(line.rounds.weights["conv.weight"], FRONT["conv.weight"] + np.float32(0.5))
    before = dict(line.rounds.weights)
    assert line.close([None, None], [0, 0]) == b"" and line.rounds.number == 2
    np.testing.assert_array_equal(line.rounds.weights["conv.weight"], before["conv.weight"])


def test_a_variance_stays_positive() -> None:
    line = Line()
    line.close([-5.0, -5.0], [1, 1])
    assert (line.rounds.weights["norm.running_var"] > 0).all()
    np.testing.assert_array_equal(line.weights["norm.running_var"], line.rounds.weights["norm.running_var"])


def test_another_average_may_be_chosen() -> None:
    line = Line(EPOCH._replace(average="trimmed"), devices=3)
    line.close([1.0, 2.0, 1e20], [1, 1, 1])
    np.testing.assert_array_equal(line.rounds.weights["conv.weight"], FRONT["conv.weight"] + np.float32(2))


def test_the_server_keeps_momentum() -> None:
    line, found = Line(EPOCH._replace(momentum=0.5)), []
    for _ in range(3):
        before = line.rounds.weights["norm.running_mean"][0]
        line.close([1.0, 1.0], [1, 1])
        found.append(line.rounds.weights["norm.running_mean"][0] - before)
    assert found == [1.0, 1.5, 1.75]
    np.testing.assert_array_equal(line.weights["conv.weight"], line.rounds.weights["conv.weight"])
    assert line.rounds.weights["conv.weight"].dtype == np.float32


def test_local_statistics_are_no_part_of_a_round() -> None:
    rounds = Rounds(EPOCH._replace(norms="local"), SETUP, 0)
    assert set(rounds.weights) == {"conv.weight"}


@pytest.mark.parametrize("down", ["fedavg", "quantised:step=0.5"])
def test_the_way_down_may_have_another_codec(down: str) -> None:
    line = Line(EPOCH._replace(down=parse_update_codec(down)))
    payload = line.close([0.3, 0.7], [30, 10])
    assert (len(payload) == 4 * 8) == (down == "fedavg")
    for turn in range(4):
        line.close([0.1 * turn, -0.2], [7, 13])
    for name, array in line.rounds.weights.items():
        np.testing.assert_array_equal(line.weights[name], array)
    state, again = line.rounds.state(), Rounds(line.rounds.policy, SETUP, 0)
    again.restore(statefile.loads(statefile.dumps(state)))
    assert statefile.dumps(again.state()) == statefile.dumps(state)


def test_the_whole_weights() -> None:
    line = Line()
    line.close([0.3, 0.7], [30, 10])
    whole = CODED.unpack(line.rounds.whole(), shapes_of(line.rounds.weights))
    for name, array in line.rounds.weights.items():
        np.testing.assert_array_equal(whole[name], array)


def test_an_update_that_comes_too_late_is_counted_and_left_out() -> None:
    line = Line()
    line.close([1.0, None], [10, 0])
    line.sessions[1].round = 0
    line.close([1.0, 100.0], [10, 10])
    assert line.fleet.late_updates == 1
    np.testing.assert_array_equal(line.rounds.weights["conv.weight"], FRONT["conv.weight"] + np.float32(2))


@pytest.mark.parametrize(
    ("update", "error", "reason"),
    [
        (Update(1, 0, 0, 0, packed(change(1.0))), PayloadError, "weights that moved with no images"),
        (Update(1, 0, 5, 0, np.full(8, np.inf, "<f4").tobytes()), (Refused, PayloadError), "."),
        (Update(1, 0, 5, 0, packed(change(1.0))[:-1]), PayloadError, "."),
    ],
)
def test_an_update_that_cannot_be_averaged(update: Update, error: Any, reason: str) -> None:
    line = Line()
    with pytest.raises(error, match=reason):
        line.rounds.take(line.sessions[0], update)


def test_no_update_is_taken_where_nothing_is_averaged() -> None:
    line = Line(RoundPolicy(Every(), CODED))
    with pytest.raises(Refused, match=r"front halves are not averaged here \(--sync-every 0\)"):
        line.rounds.take(line.sessions[0], Update(1, 0, 5, 0, packed(change(1.0))))
    assert line.rounds.take(line.sessions[0], Update(1, 0, 5, 0, b"")) is None


def test_who_grouped_its_channels_anew_is_refused_alone() -> None:
    line = Line()
    line.sessions[1].tables = dict(TABLES, order=TABLES["order"][::-1].copy())
    with pytest.raises(Refused, match="device-2 grouped its channels anew"):
        line.rounds.take(line.sessions[1], Update(2, 0, 5, 0, packed(change(1.0))))
    assert line.rounds.take(line.sessions[0], Update(1, 0, 5, 0, packed(change(1.0)))) is not None


@pytest.mark.parametrize(("every", "per_epoch"), [(0, 0), (1, 4), (2, 2), (3, 1), (100, 1)])
def test_rounds_in_an_epoch_are_those_of_the_device_with_most_steps(every: int, per_epoch: int) -> None:
    line = Line(RoundPolicy(Every(steps=every), CODED))
    line.sessions[0].hello = line.sessions[0].hello._replace(steps=2)
    assert line.rounds.per_epoch(line.fleet) == per_epoch


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("0", Every()), ("20", Every(steps=20)), ("20steps", Every(steps=20)), ("1epoch", Every(epochs=1)),
        ("3epochs", Every(epochs=3)), ("30s", Every(seconds=30)),
    ],
)  # fmt: skip
def test_what_sync_every_says(text: str, every: Every) -> None:
    assert parse_every(text) == every and bool(every) == (text != "0")


@pytest.mark.parametrize("text", ["", "epoch", "-1", "1.5s", "s", "1 epoch", "never", "1epochs2"])
def test_anything_else_is_no_rhythm(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--sync-every {text}: expected a number of steps, or 1epoch")):
        parse_every(text)


def test_a_policy_that_makes_no_sense() -> None:
    with pytest.raises(UnknownName, match="did you mean clipped"):
        EPOCH._replace(average="cliped").check()
    with pytest.raises(UnknownName, match="there are: average, local"):
        EPOCH._replace(norms="none").check()
    for momentum in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match=r"--server-momentum .*: expected 0 or more, and below 1"):
            EPOCH._replace(momentum=momentum).check()


class TestService:
    """The messages of rounds. Nobody waits: each update closes a round of its own, where it is not said otherwise."""

    @pytest.fixture
    def service(self, make: Callable[..., Service]) -> Service:
        return self.averaging(make(), EPOCH)

    def averaging(self, service: Service, policy: RoundPolicy) -> Service:
        return Service(service.setup._replace(front=FRONT, learned=LEARNED, statistics=STATISTICS), rounds=policy)

    def update(self, service: Service, session: int, value: float | None = 1.0, images: int = 12) -> Message:
        number = service.fleet.sessions[session].round
        parts = (b"" if value is None else packed(change(value)),)
        reply = service.handle(Message("update", session, number, {"n": images, "left": 12}, parts))
        assert reply.kind == "weights" and reply.session == session, reply
        return reply

    def test_the_answer_names_the_next_round_and_the_plan_is_taken_over(self, service: Service) -> None:
        events: list[dict[str, Any]] = []
        session = hello(service)
        service.on_event = events.append
        reply = self.update(service, session)
        assert reply.step == 1 and reply.header == {} and service.fleet.sessions[session].left == 12
        new = moved(change(0.0), CODED.unpack(reply.parts[0], shapes_of(change(0.0))), [])
        np.testing.assert_array_equal(service.rounds.weights["conv.weight"], FRONT["conv.weight"] + new["conv.weight"])
        assert events == [
            {"event": "round", "round": 0, "devices": 1, "images": 12, "bytes": len(reply.parts[0]), "late": 0}
        ]

    @pytest.mark.parametrize("more", [{"layers": "conv"}, {"down": CODED}])
    def test_an_older_device_is_refused_what_it_does_not_know(
        self, make: Callable[..., Service], more: dict[str, Any]
    ) -> None:
        service = self.averaging(make(), EPOCH._replace(**more))
        assert "old's version of edgekit does not know: update" in refusal(service, greeting(service, "old"))
        reply = service.handle(greeting(service, "new", layers=True))
        assert reply.kind == "welcome"
        assert reply.header.get("update", {}) == ({"layers": ["conv"]} if "layers" in more else {})
        assert reply.header.get("down", {}) == ({"id": "fedavg"} if "down" in more else {})

    def test_who_missed_a_round_gets_the_whole_weights(self, service: Service) -> None:
        first, second = hello(service), hello(service)
        self.update(service, first)
        events: list[dict[str, Any]] = []
        service.on_event = events.append
        reply = self.update(service, second, 50.0)
        assert reply.header == {"whole": True} and reply.step == 2
        whole = CODED.unpack(reply.parts[0], shapes_of(change(0.0)))
        for name, array in service.rounds.weights.items():
            np.testing.assert_array_equal(whole[name], array)
        np.testing.assert_array_equal(whole["conv.weight"], FRONT["conv.weight"] + np.float32(1))
        assert service.fleet.late_updates == 1 and events[0]["late"] == 1
        # In the next one it is in time again.
        reply = self.update(service, second, 1.0)
        assert reply.header == {} and service.fleet.late_updates == 1

    def test_codebooks_are_merged_and_the_same_on_both_sides(self, make: Callable[..., Service]) -> None:
        service = Service(
            make().setup._replace(front=FRONT, learned=LEARNED), patience=Patience(round_quorum=1.0), rounds=EPOCH
        )
        sessions = [hello(service), hello(service)]
        devices, images = [dict(TABLES), dict(TABLES)], [30, 10]
        for session, (number, by) in zip(sessions, enumerate((1.5, 0.5)), strict=True):
            patch = CODEC.diff(TABLES, {**TABLES, "codebook": TABLES["codebook"] * np.float32(by)}, 0.0)
            assert service.handle(Message("codebook", session, 1, {}, (patch,))).kind == "ack"
            devices[number] = CODEC.patch(devices[number], patch)
        expected = sum(n / 40 * device["codebook"] for n, device in zip(images, devices, strict=True))
        both = zip(sessions, images, strict=True)
        replies = in_threads([partial(self.update, service, session, 1.0, n) for session, n in both])
        for number, (session, reply) in enumerate(zip(sessions, replies, strict=True)):
            device = CODEC.patch(devices[number], reply.parts[1])
            for tables in (service.rounds.tables, service.fleet.sessions[session].tables):
                np.testing.assert_array_equal(device["codebook"], tables["codebook"])
            np.testing.assert_allclose(device["codebook"], expected, rtol=2e-3, atol=1e-4)
            assert service.fleet.sessions[session].tables_version == 2
            assert service.handle(feature(session, 0, tables=device, v=2)).kind == "gradient"
        # Nothing moved since: nothing travels.
        again = in_threads([partial(self.update, service, session, None, 0) for session in sessions])
        assert [reply.parts for reply in again] == [(b"", b""), (b"", b"")]

    def test_who_comes_late_gets_what_the_others_have(self, service: Service) -> None:
        first = hello(service, epochs=4)
        for _ in range(200):
            service.fleet.advance({first: 12})
        patch = CODEC.diff(TABLES, {**TABLES, "codebook": TABLES["codebook"] * np.float32(1.5)}, 0.0)
        service.handle(Message("codebook", first, 1, {}, (patch,)))
        self.update(service, first)
        reply = service.handle(greeting(service, "late", epochs=4))
        assert (reply.header["round"], reply.header["epoch"], reply.header["round_epochs"]) == (1, 2, 1)
        whole = CODED.unpack(reply.parts[0], shapes_of(change(0.0)))
        tables = tensorfile.loads(reply.parts[1])
        for name, array in service.rounds.weights.items():
            np.testing.assert_array_equal(whole[name], array)
        for name, array in service.rounds.tables.items():
            np.testing.assert_array_equal(tables[name], array)
        assert not np.array_equal(tables["codebook"], TABLES["codebook"])
        assert service.handle(feature(reply.session, 0, tables=tables)).kind == "gradient"
        assert self.update(service, reply.session).header == {}, "it is in time"

    def test_who_comes_between_an_epoch_and_its_round_ends_with_the_network_of_all(
        self, make: Callable[..., Service]
    ) -> None:
        service = self.averaging(make(), EPOCH)
        service = Service(service.setup, patience=Patience(round_quorum=1.0), rounds=EPOCH)
        early = hello(service, "early", steps=1, epochs=2)
        service.fleet.advance({early: 12})
        late = service.handle(greeting(service, "late", steps=1, epochs=2))
        assert late.header["epoch"] == 1, "its rounds are one ahead"

        def update(session: int, left: int) -> Message:
            header = {"n": 12, "left": left, "test": True}
            number = service.fleet.sessions[session].round
            return service.handle(Message("update", session, number, header, (packed(change(1.0)),)))

        with ThreadPoolExecutor(2) as pool:
            ends = pool.submit(update, late.session, 0)
            assert update(early, 12).step == 1
            service.handle(Message("tested", early, 1))
            with pytest.raises(TimeoutError):
                ends.result(0.5)
            last = update(early, 0)
            whole = CODED.unpack(ends.result(60).parts[0], shapes_of(change(0.0)))
        assert ends.result().step == last.step == 2 and ends.result().header == {"whole": True}
        np.testing.assert_array_equal(whole["conv.weight"], service.rounds.weights["conv.weight"])

    def test_who_planned_fewer_epochs_ends_alone(self, make: Callable[..., Service]) -> None:
        service = self.averaging(make(), EPOCH)
        service = Service(service.setup, patience=Patience(round_quorum=1.0), rounds=EPOCH)
        few, many = hello(service, "few", steps=1), hello(service, "many", steps=1, epochs=3)
        header = {"n": 12, "test": True}
        asks = [
            partial(service.handle, Message("update", session, 0, {**header, "left": left}, (packed(change(1.0)),)))
            for session, left in ((few, 0), (many, 24))
        ]
        assert [reply.step for reply in in_threads(asks)] == [1, 1]

    def test_welcome_says_when_rounds_are(self, make: Callable[..., Service]) -> None:
        found = []
        for every in (Every(), Every(steps=25), Every(epochs=2), Every(seconds=30.0)):
            service = self.averaging(make(), EPOCH._replace(every=every, norms="local"))
            header = service.handle(greeting(service, "a")).header
            found.append([header.get(key, 0) for key in ("rounds", "round_epochs", "round_seconds")])
            assert header["norms"] == "local" and "round" not in header and "epoch" not in header
        assert found == [[0, 0, 0], [4, 0, 0], [0, 2, 0], [0, 0, 30.0]]

    def test_some_rest_until_the_next_round(self, make: Callable[..., Service]) -> None:
        service = self.averaging(make(), EPOCH._replace(sampling=Sampling(0.5)))
        sessions = [hello(service) for _ in range(4)]
        resting = {session.number for session in service.fleet.sessions.values() if session.resting}
        assert len(resting) == 2
        seen = set()
        for _ in range(8):
            for session in sessions:
                reply = self.update(service, session)
                assert reply.header.get("resting", False) == service.fleet.sessions[session].resting
            seen |= {session.number for session in service.fleet.sessions.values() if session.resting}
        assert seen == set(sessions), "each has its turn"

    def test_without_rounds_the_last_message_is_answered_with_nothing(self, make: Callable[..., Service]) -> None:
        service, events = make(), list[dict[str, Any]]()
        session = hello(service)
        service.on_event = events.append
        reply = self.update(service, session, None, 0)
        assert reply.parts == (b"", b"") and reply.header == {} and not events
        text = refusal(service, Message("update", session, 1, {"n": 12, "left": 0}, (packed(change(1.0)),)))
        assert "--sync-every 0" in text


def in_threads(asks: Sequence[Callable[[], Message]]) -> list[Message]:
    """The answer to each, asked at the same time: all of them wait for each other."""
    with ThreadPoolExecutor(len(asks)) as pool:
        return [future.result(60) for future in [pool.submit(ask) for ask in asks]]
