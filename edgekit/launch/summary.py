"""The last line of a record: what a training run came to, from the "done" events of its devices."""

import math
from typing import Any

import numpy as np

from edgekit.launch.processes import Event
from edgekit.runtime.evaluation import balanced

#: A network whose balanced accuracy is at most this many times that of guessing has learned nothing.
WORSE = 1.2
#: After so many steps it should have; a loss of so many times that of guessing is a fault at any time.
ENOUGH, RUINED = 50, 2.0


def summary(run: Event, done: list[Event], quarantined: dict[str, str], server: Event) -> Event:
    """The "summary" event of a run. `run` says what was run; `done` has one event per device that finished.

    `quarantined`: device -> why the server learned no more from it; `server` is the server's "ended" event. Bytes per
    image are measured at the frame: all frames of training, headers, labels, codebooks and rounds included, over the
    images trained on; evaluation is left out. Seconds are the mean over devices. Accuracy is that of the deployed
    pipeline at the end of the run, over the test images of all devices, in percent.
    """
    images = sum(event["images"] for event in done)
    # Not one that came when the run was over.
    trained = [event for event in done if event["images"]]
    by_class = {key: np.sum([event["by_class"][key] for event in done], axis=0) for key in ("images", "correct")}
    tested = int(by_class["images"].sum())

    def total(name: str) -> float:
        return float(sum(event[name] for event in done))

    def mean(name: str) -> float:
        return float(sum(event[name] for event in trained)) / len(trained)

    def mean_seconds(name: str) -> float:
        return float(sum(event["seconds"].get(name, 0.0) for event in done)) / len(done)

    def by_device(name: str) -> dict[str, Any]:
        return {event["device"]: event[name] for event in sorted(done, key=lambda e: e["device"]) if name in event}

    def weighted(name: str) -> float:
        return float(sum(event[name] * sum(event["by_class"]["images"]) for event in done)) / tested

    validated = [event for event in done if "validation_accuracy" in event]
    measured = [event for event in done if "gradient_error" in event]
    return dict(
        run,
        event="summary",
        accuracy=100.0 * int(by_class["correct"].sum()) / tested,
        balanced_accuracy=balanced(by_class["correct"], by_class["images"]),
        accuracy_by_class=[
            100.0 * int(right) / int(n) if n else None
            for right, n in zip(by_class["correct"], by_class["images"], strict=True)
        ],
        images_tested_by_class=by_class["images"].tolist(),
        accuracy_by_device=by_device("accuracy"),
        balanced_accuracy_by_device=by_device("balanced_accuracy"),
        train_accuracy_by_device=by_device("train_accuracy"),
        images_by_device=by_device("images"),
        test_loss=weighted("test_loss"),
        **(
            {name: sum(event[name] for event in validated) / len(validated)
             for name in ("validation_accuracy", "validation_loss")}
            if validated else {}
        ),
        quarantined=quarantined,
        fleet={name: value for name, value in server.items() if name not in ("event", "process")},
        codebook_by_device=by_device("codebook"),
        loss=mean("loss"),
        gradient_deviation=mean("gradient_deviation"),
        **({
            "gradient_error": sum(event["gradient_error"] for event in measured) / len(measured),
            "largest_error": max(event["largest_error"] for event in measured),
        } if measured else {}),
        staleness=mean("staleness"),
        images=images,
        bytes_up_per_image=total("bytes_up") / images,
        bytes_down_per_image=total("bytes_down") / images,
        bytes_by_kind=_add([event["bytes"] for event in done]),
        # Devices train side by side: their rates add up.
        images_per_s=sum(event["images"] / event["train_s"] for event in trained),
        seconds={
            "device_compute": mean_seconds("compute"),
            "encode": mean_seconds("encode"),
            "network": mean_seconds("network"),
            "server": mean_seconds("server"),
            "round": mean_seconds("round"),
            "evaluate": mean_seconds("evaluate"),
            "train": total("train_s") / len(done),
        },
    )  # fmt: skip


def collapsed(summary: Event, classes: int) -> str | None:
    """Why the network of `summary` is no better than guessing; None where it is, or where too little was trained."""
    guessing, loss = 100.0 / classes, math.log(classes)
    # Batch norm's running statistics lag behind: in the first epochs tests are worse than training.
    learned_nothing = summary["loss"] >= loss and summary["fleet"]["steps"] >= ENOUGH
    ruined = max(summary["loss"], summary["test_loss"]) >= RUINED * loss
    if summary["balanced_accuracy"] > WORSE * guessing or not (learned_nothing or ruined):
        return None
    return (
        f"the network came to {summary['balanced_accuracy']:.2f} % (mean over classes), guessing among {classes} gives "
        f"{guessing:.2f}; loss {summary['loss']:.3f} in training, {summary['test_loss']:.3f} in the test, guessing "
        f"{loss:.3f}"
    )


def _add(counts: list[dict[str, int]]) -> dict[str, int]:
    added: dict[str, int] = {}
    for count in counts:
        for key, n in count.items():
            added[key] = added.get(key, 0) + n
    return added
