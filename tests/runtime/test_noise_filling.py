"""A device that tells how much quantising takes, and learns from what a server makes of it."""

import pytest

from edgekit.bundle import Bundle
from edgekit.data.base import Dataset
from edgekit.line.frame import Message
from tests.runtime.loopback import service, train


@pytest.mark.parametrize("depth", [1, 3])
def test_the_share_of_the_last_batch_learned_from(small_bundle: Bundle, digits: Dataset, depth: int) -> None:
    handle, told = service(small_bundle, noise="lost").handle, list[float]()

    def watched(message: Message) -> Message:
        if message.kind == "feature":
            told.append(message.header["d"])
        return handle(message)

    device, events = train(small_bundle, digits, watched, epochs=4, in_flight=depth)
    assert told[:depth] == depth * [0.0] and min(told[depth:]) > 0 and max(told) < 0.5
    assert device.session.codebooks is not None
    assert told[-1] == pytest.approx(device.session.codebooks.missing, abs=0.05)
    assert events[-1]["accuracy"] > 60


@pytest.mark.parametrize("noise", [None, "0.3"])
def test_nobody_tells_what_nobody_asks_for(small_bundle: Bundle, digits: Dataset, noise: str | None) -> None:
    handle, headers = service(small_bundle, noise=noise).handle, list[set[str]]()

    def watched(message: Message) -> Message:
        headers.append(set(message.header))
        return handle(message)

    train(small_bundle, digits, watched, epochs=1)
    assert {"n", "v"} in headers and not any("d" in header for header in headers)
