"""A device that tells how much quantising lost, and learns from what a server makes of it."""

from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.codecs.codebook import MOST_LOST
from edgekit.data.base import Dataset
from edgekit.wire import Message
from tests.runtime.test_edge import coded_by, service, train


@pytest.mark.parametrize("filling", [False, True])
def test_only_what_is_filled_is_told(small_bundle: Bundle, digits: Dataset, filling: bool, tmp_path: Path) -> None:
    bundle = coded_by("memory", small_bundle, tmp_path, filling=filling)
    handle, seen = service(bundle).handle, list[Message]()

    def watched(message: Message) -> Message:
        seen.append(message)
        return handle(message)

    device, events = train(bundle, digits, watched, epochs=4)
    shares = {kind: [each.header.get("d") for each in seen if each.kind == kind] for kind in ("feature", "evaluate")}
    assert set(shares["evaluate"]) == {None}
    if not filling:
        assert set(shares["feature"]) == {None}
        return
    # The first batch is told before anything is known.
    assert shares["feature"][0] == 0 and all(0 < each < MOST_LOST for each in shares["feature"][1:])
    assert shares["feature"][-1] == pytest.approx(device._codebook.distortion.mean(), abs=0.1)  # type: ignore[union-attr]
    assert events[-1]["accuracy"] > 60
