"""The epochs of one training run: what its devices and its server said of each, put together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from edgekit.report.records import Row, Training
from edgekit.report.schema import NUMBER


class Epoch(NamedTuple):
    """The end of an epoch that all devices finished. What is not known is None.

    Accuracy and losses are means over images, of the test images those of all devices; the rest are means over the
    devices, but for the sum of their megabytes.
    """

    number: int
    seconds: float
    megabytes: float
    #: In percent; only where the epoch ended with a test of every device.
    accuracy: float | None
    loss: float | None
    test_loss: float | None
    validation_loss: float | None
    perplexity: float | None
    distortion: float | None
    dead: float | None


def epochs(training: Training) -> list[Epoch]:
    """The epochs that all devices of the run have finished; one in quarantine need not finish any more."""
    devices = sorted({event["device"] for event in training.epochs})
    found = []
    seconds = dict.fromkeys(devices, 0.0)
    images = dict.fromkeys(devices, 0)
    sent = dict.fromkeys(devices, 0.0)
    for number in sorted({event["epoch"] for event in training.epochs}):
        events = {event["device"]: event for event in training.epochs if event["epoch"] == number}
        learned = {}
        for device, event in events.items():
            learned[device] = max(event["images"] - images[device], 0)
            seconds[device] += learned[device] / max(event["images_per_s"], 1e-9)
            images[device] = event["images"]
            sent[device] = event["bytes_up"] + event["bytes_down"]
        if all(device in events or device in training.quarantined for device in devices):
            weights = [learned[device] for device in events]
            found.append(
                Epoch(
                    number,
                    sum(seconds[device] for device in events) / len(events),
                    sum(sent.values()) / 1e6,
                    *_tested(training, number, list(events.values()), weights),
                    *_health(list(events.values())),
                )
            )
    return found


def _tested(
    training: Training, number: int, events: list[Row], learned: list[int]
) -> tuple[float | None, float | None, float | None, float | None]:
    """Accuracy, training loss, test loss and validation loss at the end of epoch `number`.

    Where front halves are averaged each device tests a share of the test images, and where they are not each tests all
    of them. The server's own events count by images either way. Older records have none: then the mean over the
    devices stands for it.
    """
    told = [event for event in training.tested if event["epoch"] == number and event["images"]]
    loss = _mean([event.get("loss") for event in events], learned)
    if any(event.get("accuracy") is None for event in events):
        return None, loss, None, None
    source, weights = (told, [event["images"] for event in told]) if told else (events, [1] * len(events))
    tested = (
        _mean([event.get(name) for event in source], weights) for name in ("accuracy", "test_loss", "validation_loss")
    )
    accuracy, test_loss, validation_loss = tested
    return accuracy, loss, test_loss, validation_loss


def _health(events: list[Row]) -> list[float | None]:
    """Perplexity, distortion and dead codewords of the codebooks."""
    health = [event["codebook"] for event in events if event.get("codebook")]
    names = ("perplexity", "distortion", "dead_codewords")
    return [_mean([each.get(name) for each in health], [1] * len(health)) for name in names]


def _mean(values: Sequence[Any], weights: Sequence[int]) -> float | None:
    """The mean of those `values` that are numbers: a loss that became none is written as NaN, or as null."""
    known = [(float(value), n) for value, n in zip(values, weights, strict=True) if NUMBER.fits(value)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
