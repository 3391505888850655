"""A client's round: its payload is what it says arrives, and draws are those of seed, round and client alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from edgekit.apart import Apart
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import parse_update_codec
from edgekit.codecs.updates.flat import shapes_of
from edgekit.errors import Diverged, UsageError
from edgekit.federate.apart import by_kind, kind_of
from edgekit.federate.client import Client, Fitted
from edgekit.federate.data import Data
from edgekit.federate.network import Network
from edgekit.federate.scaling import Place, train_scales
from edgekit.federate.settings import Local, Scaling
from edgekit.federate.training import evaluate

Make = Callable[[], nn.Module]
LOCAL = Local(batch=20, augment="flip,crop:1")
SCALES = Scaling(epochs=2, lr=0.02)


def client(
    network: Make, data: Data, codec: str = "quantised:step=1", scaling: Scaling | None = None, local: Local = LOCAL
) -> tuple[Client, Network]:
    made = Network(network(), scaled=None if scaling is None else scaling.layers)
    return Client(made, data, apart_codec(codec), local, scaling, 1, 0), made


def apart_codec(codec: str) -> Apart:
    return by_kind(*(parse_update_codec(each) for each in (codec, "quantised", "quantised:step=0.01")))


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("scaling", [None, SCALES])
def test_the_payload_is_what_arrives(network: Make, data: Data, scaling: Scaling | None) -> None:
    made, of = client(network, data, scaling=scaling)
    weights = of.weights
    for number in range(2):
        fitted = made.fit(weights, Place(number, 2))
        assert same(apart_codec("quantised:step=1").unpack(fitted.payload, shapes_of(weights)), fitted.arrives)
        assert fitted.images == made.images == 160


def test_it_learns(network: Make, data: Data) -> None:
    made, of = client(network, data, "fedavg", local=LOCAL._replace(epochs=8, augment=None))
    weights = of.weights
    before = evaluate(of, data).accuracy
    arrives = made.fit(weights, Place(0, 1)).arrives
    of.set({name: weights[name] + arrives[name] for name in weights})
    assert evaluate(of, data).accuracy > before + 20


def test_the_same_round_gives_the_same_bytes(network: Make, data: Data) -> None:
    def fitted(number: int, before: bool) -> Fitted:
        made, of = client(network, data, "fedavg", SCALES)
        weights = of.weights
        if before:
            # Another client, with the same network: it changes nothing.
            Client(of, data, apart_codec("fedavg"), LOCAL, SCALES, 2, 0).fit(weights, Place(0, 9))
        return made.fit(weights, Place(number, 9))

    assert fitted(2, False).payload == fitted(2, True).payload != fitted(3, False).payload


def test_weights_that_train_leave_scales_where_they_are(network: Make, data: Data) -> None:
    """With a rate of 0 no scales are kept: the update has none."""
    made, of = client(network, data, scaling=SCALES._replace(lr=0.0))
    weights = of.weights
    rng = np.random.default_rng(0)
    weights.update({name: rng.uniform(0.5, 2, s.shape).astype(np.float32) for name, s in of.scales.items()})
    fitted = made.fit(weights, Place(0, 1))
    assert fitted.told["scaled"] == 0
    assert not any(array.any() for name, array in fitted.arrives.items() if kind_of(name) == "scales")
    assert any(array.any() for name, array in fitted.arrives.items() if kind_of(name) != "scales")


def test_scales_are_trained_on_what_arrives(network: Make, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    made, of = client(network, data, "quantised:step=1", SCALES)
    weights, seen = of.weights, []

    def watched(network: Network, *rest: Any) -> Any:
        seen.append(network.weights)
        return train_scales(network, *rest)

    monkeypatch.setattr("edgekit.federate.client.train_scales", watched)
    arrives = made.fit(weights, Place(0, 1)).arrives
    (basis,) = seen
    for name, array in basis.items():
        expected = weights[name] if kind_of(name) == "scales" else weights[name] + arrives[name]
        if name in of.variances:
            expected = np.maximum(expected, np.float32(0.1) * weights[name])
        np.testing.assert_array_equal(array, expected)


def test_its_state_is_what_the_codec_left_out(network: Make, data: Data) -> None:
    one, of = client(network, data)
    weights = of.weights
    one.fit(weights, Place(0, 3))
    two, _ = client(network, data)
    two.restore(one.state)
    assert two.fit(weights, Place(1, 3)).payload == one.fit(weights, Place(1, 3)).payload
    three, _ = client(network, data)
    assert three.fit(weights, Place(1, 3)).payload != two.fit(weights, Place(1, 3)).payload


def test_training_that_diverges_says_so(network: Make, data: Data) -> None:
    made, of = client(network, data, local=LOCAL._replace(lr=1e30, epochs=3))
    with pytest.raises(Diverged):
        made.fit(of.weights, Place(0, 1))


def test_scaling_needs_images_to_choose_by(network: Make, data: Data) -> None:
    with pytest.raises(UsageError, match="validation of 0"):
        client(network, data, scaling=SCALES, local=LOCAL._replace(validation=0.0))
