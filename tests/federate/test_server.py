"""The server's weights, and what clients make of its messages: the same, however many rounds they missed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import statefile
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import parse_update_codec
from edgekit.errors import PayloadError, UnknownName, UsageError
from edgekit.federate.server import NOTHING, UPDATES, WHOLE, Policy, Server, follow

VARIANCES = ("norm.running_var",)
UP = parse_update_codec("fedavg")


def begun() -> Arrays:
    rng = np.random.default_rng(0)
    return {"weight": rng.normal(size=(30, 40)).astype(np.float32), "norm.running_var": np.ones(30, np.float32)}


def payload(seed: int, size: float = 0.1) -> bytes:
    rng = np.random.default_rng(seed)
    update = {name: (size * rng.normal(size=array.shape)).astype(np.float32) for name, array in begun().items()}
    return UP.pack(update, rng)


def server(down: str | None = None, policy: Policy = Policy()) -> Server:  # noqa: B008
    return Server(begun(), VARIANCES, UP, None if down is None else parse_update_codec(down), policy, 0)


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_updates_are_averaged_by_images() -> None:
    made = server()
    made.close([payload(1), payload(2)], [30, 10])
    shapes = {name: array.shape for name, array in begun().items()}
    one, other = (UP.unpack(payload(seed), shapes)["weight"] for seed in (1, 2))
    np.testing.assert_allclose(made.weights["weight"], begun()["weight"] + 0.75 * one + 0.25 * other, atol=1e-6)
    assert made.number == 1


def test_momentum_goes_on_along_the_averages() -> None:
    made = server(policy=Policy(momentum=0.5))
    made.close([payload(1)], [1])
    first = made.weights["weight"] - begun()["weight"]
    before = made.weights["weight"]
    zeros = UP.pack({name: np.zeros_like(array) for name, array in begun().items()}, np.random.default_rng(0))
    made.close([zeros], [1])
    np.testing.assert_allclose(made.weights["weight"] - before, first / 2, atol=1e-6)


def test_variances_stay_positive() -> None:
    made = server()
    made.close([payload(1, size=50.0)], [1])
    assert made.weights["norm.running_var"].min() >= np.float32(0.1)


@pytest.mark.parametrize("down", [None, "quantised:step=1", "fedavg"])
def test_whoever_follows_has_the_weights_of_the_server(down: str | None) -> None:
    """Bit for bit, whether a client took part in all rounds or missed some; first bytes say what came."""
    codec, made = None if down is None else parse_update_codec(down), server(down)
    clients, kinds = [begun(), begun(), begun()], []
    has = [0, 0, 0]
    for number in range(8):
        for k in (k for k in range(3) if number % (k + 1) == 0):
            message = made.message(has[k])
            kinds.append(message[:1])
            clients[k], has[k] = follow(clients[k], message, codec, VARIANCES), number
            assert same(clients[k], made.weights)
        made.close([payload(number)], [1])
    # Two updates as float32 are longer than all weights.
    assert set(kinds) == {NOTHING, *({None: [WHOLE], "fedavg": [WHOLE, UPDATES]}.get(down, [UPDATES]))}
    assert not same(made.weights, begun())


def test_all_weights_go_where_updates_would_be_longer() -> None:
    made = server("quantised:step=0.01")
    for number in range(6):
        made.close([payload(number)], [1])
    whole = made.message(0)
    assert whole[:1] == WHOLE and len(whole) == 1 + 4 * 1230
    late = made.message(5)
    assert late[:1] == UPDATES and len(late) < len(whole)
    codec = parse_update_codec("quantised:step=0.01")
    assert same(follow(begun(), whole, codec, VARIANCES), made.weights)


def test_a_server_goes_on_from_its_state() -> None:
    policy = Policy(momentum=0.9)
    one, two = server("quantised:step=1", policy), server("quantised:step=1", policy)
    for number in range(3):
        one.close([payload(number)], [1])
    two.restore(statefile.loads(statefile.dumps(one.state)))
    for each in (one, two):
        each.close([payload(9), payload(10)], [1, 2])
    assert same(one.weights, two.weights) and one.message(1) == two.message(1) and one.message(3) == two.message(3)


def test_an_update_that_does_not_parse_changes_nothing() -> None:
    made = server()
    with pytest.raises(PayloadError):
        made.close([payload(1), b"abc"], [1, 1])
    assert made.number == 0 and same(made.weights, begun())


@given(st.binary(max_size=60), st.sampled_from([None, "quantised"]))
def test_any_message_is_followed_or_refused(message: bytes, down: str | None) -> None:
    codec = None if down is None else parse_update_codec(down)
    weights = {"weight": np.zeros((2, 2), np.float32)}
    try:
        after = follow(weights, message, codec, ())
    except PayloadError:
        return
    assert after["weight"].shape == (2, 2)


def test_a_policy_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="momentum 1"):
        Policy(momentum=1.0).check()
    with pytest.raises(UnknownName, match="average"):
        Policy(average="median").check()
