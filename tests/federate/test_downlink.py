"""Weights that go down as updates: every client comes to the server's, whatever it missed."""

import numpy as np
import pytest

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import parse_update_codec
from edgekit.errors import PayloadError
from edgekit.federate.downlink import Downlink, follow

CODEC = parse_update_codec("quantised:step=1")


def weights() -> Arrays:
    return {"w": np.zeros((64, 64), np.float32), "norm.num_batches_tracked": np.array(0, np.int64)}


def trained(down: Downlink, rounds: int, rng: np.random.Generator) -> Arrays:
    """What the server wants after `rounds` rounds, each of which begins with what the clients have."""
    target = down.weights
    for _ in range(rounds):
        step = rng.normal(size=(64, 64)).astype(np.float32)
        count = down.weights["norm.num_batches_tracked"] + 3
        target = {"w": down.weights["w"] + step, "norm.num_batches_tracked": np.asarray(count)}
        down.follow(target)
    return target


def test_a_client_that_missed_rounds_comes_to_the_servers_weights(rng: np.random.Generator) -> None:
    down = Downlink(CODEC, 0, weights())
    trained(down, 1, rng)
    since_one = down.weights
    trained(down, 3, rng)
    payloads = down.since(1)
    assert payloads is not None and len(payloads) == 3
    mine = follow(since_one, payloads, CODEC)
    for name, array in down.weights.items():
        np.testing.assert_array_equal(mine[name], array)
    assert mine["norm.num_batches_tracked"] == 12
    assert down.since(down.version) == []


def test_one_that_missed_more_than_the_weights_take_gets_them_whole(rng: np.random.Generator) -> None:
    down = Downlink(CODEC, 0, weights())
    trained(down, 40, rng)
    assert down.since(None) is down.since(0) is down.since(-1) is down.since(41) is None
    last = down.since(39)
    assert last is not None and 10 * len(last[0]) < down.weights["w"].nbytes


def test_the_same_seed_gives_the_same_bytes() -> None:
    runs = []
    for _ in range(2):
        down = Downlink(CODEC, 3, weights())
        trained(down, 2, np.random.default_rng(1))
        runs.append(down.since(0))
    assert runs[0] == runs[1]


def test_broken_payloads_are_typed_errors(rng: np.random.Generator) -> None:
    down = Downlink(CODEC, 0, weights())
    trained(down, 1, rng)
    (payload,) = down.since(0) or []
    for cut in range(0, len(payload), max(1, len(payload) // 50)):
        with pytest.raises(PayloadError):
            follow(weights(), [payload[:cut]], CODEC)
