"""A device that tells how much quantising takes, and learns from what a server makes of it."""

from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.data.base import Dataset
from edgekit.line.frame import Message
from tests.runtime.test_edge import coded_by, service, train


@pytest.mark.parametrize("depth", [1, 3])
def test_the_share_of_the_last_batch_learned_from(
    small_bundle: Bundle, digits: Dataset, depth: int, tmp_path: Path
) -> None:
    bundle = coded_by("temporal", small_bundle, tmp_path, filling=True)
    handle, told = service(bundle).handle, list[float]()

    def watched(message: Message) -> Message:
        if message.kind == "feature":
            told.append(message.header["d"])
        return handle(message)

    device, events = train(bundle, digits, watched, epochs=4, in_flight=depth)
    assert told[:depth] == depth * [0.0] and min(told[depth:]) > 0 and max(told) < 0.5
    assert device._codebook is not None
    assert told[-1] == pytest.approx(device._codebook.distortion.mean(), abs=0.05)
    assert events[-1]["accuracy"] > 60
