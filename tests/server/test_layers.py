"""What --update-layers says, the last layers or names, and the rounds that carry no others."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle
from edgekit.carried import Carried, Sender
from edgekit.codecs.base import Arrays
from edgekit.codecs.updates.flat import shapes_of
from edgekit.errors import PayloadError, UnknownName, UsageError
from edgekit.line.messages import Update
from edgekit.sampling import Sampling
from edgekit.server.layers import update_layers
from edgekit.server.policy import Every
from tests.server import averaging
from tests.server.averaging import CODED, EPOCH, Line, change, packed

#: The weights of a layer that every round carries.
CHOSEN = averaging.FRONT["conv.weight"]

#: In the order of computation, which is not that of names.
FRONT = {
    "stem.conv.weight": np.zeros((4, 3, 3, 3), np.float32),
    "stem.norm.weight": np.zeros(4, np.float32),
    "stem.norm.bias": np.zeros(4, np.float32),
    "body.10.weight": np.zeros((4, 4, 1, 1), np.float32),
    "body.10.bias": np.zeros(4, np.float32),
    "body.2.conv.weight": np.zeros((4, 4, 3, 3), np.float32),
    "body.2.norm.weight": np.zeros(4, np.float32),
    "stem.norm.running_mean": np.zeros(4, np.float32),
    "local_head.conv.weight": np.zeros((4, 4, 3, 3), np.float32),
}


def layers(text: str | None) -> list[str]:
    return update_layers(text, FRONT, list(FRONT))


def test_all_where_nothing_is_said() -> None:
    assert layers(None) == []


def test_the_last_ones_with_their_norms() -> None:
    assert layers("last:1") == ["body.2.conv", "body.2.norm"]
    assert layers("last:2") == ["body.10", "body.2.conv", "body.2.norm"]
    assert layers("last:3") == ["stem.conv", "stem.norm", "body.10", "body.2.conv", "body.2.norm"]


def test_by_name() -> None:
    assert layers("stem") == ["stem"] and layers("body.2,stem.norm") == ["body.2", "stem.norm"]
    assert layers("body.10.bias,local_head") == ["body.10.bias", "local_head"]


@pytest.mark.parametrize("text", ["last:0", "last:4", "last:99"])
def test_too_many_or_none(text: str) -> None:
    told = f"--update-layers {text}: expected 1 to 3, the layers that learn are stem.conv, body.10, body.2.conv"
    with pytest.raises(UsageError, match=re.escape(told)):
        layers(text)


@pytest.mark.parametrize("text", ["", "last", "last:", "last:two", "body.3", "stem,", "weight"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(UnknownName, match=r"unknown layer of --update-layers .* take last:K, or of these: stem\.conv"):
        layers(text)


def test_of_a_bundle(small_bundle: Bundle) -> None:
    front = small_bundle.arrays("front.safetensors")
    one = update_layers("last:1", front, small_bundle.learned)
    every = update_layers("last:2", front, small_bundle.learned)
    assert one == every[-len(one) :] and len(one) < len(every)


class TestRounds:
    """Rounds that carry the layer "conv", and the norm's statistics only where a device tests."""

    POLICY = EPOCH._replace(layers="conv")

    def close(
        self, line: Line, values: Sequence[float], tests: Sequence[bool], images: Sequence[int] = (10, 30)
    ) -> Arrays:
        """What a round came to; a device that tests sends all that it learned."""
        carried, entries = Carried(line.rounds.weights, line.rounds.layers), []
        for session, value, test, n in zip(line.sessions, values, tests, images, strict=True):
            names = line.rounds.weights if test else carried.chosen
            update = {name: array for name, array in change(value).items() if name in names}
            payload, rest, _ = Sender(carried, CODED).send(update, np.random.default_rng(0))
            message = Update(session.number, line.rounds.number, n, 0, payload, test, rest)
            entries.append((session, message, line.rounds.take(session, message)))
        payload, rest = line.rounds.close(line.fleet, entries)
        for session in line.sessions:
            session.round = line.rounds.number
        return carried.unpack(CODED, payload, rest, shapes_of(line.rounds.weights))

    def test_the_rest_comes_when_all_test(self) -> None:
        line = Line(self.POLICY)
        assert list(self.close(line, [1.0, 1.0], [False, False])) == ["conv.weight"]
        assert not line.rounds.in_step
        np.testing.assert_array_equal(line.rounds.weights["norm.running_mean"], [0, 0])
        assert set(self.close(line, [1.0, 3.0], [True, True])) == set(line.rounds.weights)
        assert line.rounds.in_step
        np.testing.assert_array_equal(line.rounds.weights["norm.running_mean"], np.float32([2.5, 2.5]))
        np.testing.assert_array_equal(line.rounds.weights["conv.weight"], CHOSEN + np.float32(3.5))

    def test_the_rest_of_those_that_test_is_for_all(self) -> None:
        line = Line(self.POLICY)
        self.close(line, [1.0, 3.0], [True, False])
        np.testing.assert_array_equal(line.rounds.weights["norm.running_mean"], [1, 1])
        np.testing.assert_array_equal(line.rounds.weights["conv.weight"], CHOSEN + np.float32(2.5))

    def test_who_tests_gets_the_rest_also_where_nobody_learned(self) -> None:
        line = Line(self.POLICY)
        entries = [(session, Update(session.number, 0, 0, 0, b"", True), None) for session in line.sessions]
        payload, rest = line.rounds.close(line.fleet, entries)
        found = Carried(line.rounds.weights, ["conv"]).unpack(CODED, payload, rest, shapes_of(line.rounds.weights))
        assert set(found) == set(line.rounds.weights) and not any(array.any() for array in found.values())

    def test_momentum_is_each_layers_own(self) -> None:
        line = Line(self.POLICY._replace(momentum=0.5))
        for tests in ([False, False], [False, False], [True, True]):
            self.close(line, [1.0, 1.0], tests)
        np.testing.assert_allclose(line.rounds.weights["conv.weight"], CHOSEN + 1 + 1.5 + 1.75)
        np.testing.assert_allclose(line.rounds.weights["norm.running_mean"], [1, 1])

    def test_a_rest_that_was_not_asked_for(self) -> None:
        line = Line()
        with pytest.raises(PayloadError, match="12 B of layers that only some rounds carry"):
            line.rounds.take(line.sessions[0], Update(1, 0, 5, 0, packed(change(1.0)), True, 12))

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            ({"every": Every()}, "--update-layers: there are no rounds: give --sync-every"),
            ({"every": Every(seconds=30.0)}, "by the clock devices do not test together"),
            ({"sampling": Sampling(0.5)}, "a device that rests then would lose its own: leave --sampling out"),
        ],
    )
    def test_what_does_not_go_with_it(self, wrong: dict[str, Any], reason: str) -> None:
        with pytest.raises(UsageError, match=reason):
            self.POLICY._replace(**wrong).check()
