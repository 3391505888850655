"""The last line of a record: what a training run came to, from the "done" events of its devices."""

from edgekit.launch.processes import Event


def summary(run: Event, done: list[Event]) -> Event:
    """The "summary" event of a run. `run` says what was run; `done` has one event per device.

    Bytes per image are measured at the frame: all frames of training, headers, labels and codebooks included, over
    the images trained on; evaluation is left out. Seconds are the mean over devices. Accuracy is the mean over
    devices of the deployed pipeline's, over the whole test set, in percent.
    """
    images = sum(event["images"] for event in done)

    def total(name: str) -> float:
        return float(sum(event[name] for event in done))

    def mean_seconds(name: str) -> float:
        return float(sum(event["seconds"].get(name, 0.0) for event in done)) / len(done)

    return dict(
        run,
        event="summary",
        accuracy=total("accuracy") / len(done),
        accuracy_by_device={event["device"]: event["accuracy"] for event in done},
        codebook_by_device={event["device"]: event["codebook"] for event in done if "codebook" in event},
        loss=total("loss") / len(done),
        gradient_deviation=total("gradient_deviation") / len(done),
        staleness=total("staleness") / len(done),
        images=images,
        bytes_up_per_image=total("bytes_up") / images,
        bytes_down_per_image=total("bytes_down") / images,
        bytes_by_kind=_add([event["bytes"] for event in done]),
        # Devices train side by side: their rates add up.
        images_per_s=sum(event["images"] / event["train_s"] for event in done),
        seconds={
            "device_compute": mean_seconds("compute"),
            "encode": mean_seconds("encode"),
            "network": mean_seconds("network"),
            "server": mean_seconds("server"),
            "evaluate": mean_seconds("evaluate"),
            "train": total("train_s") / len(done),
        },
    )


def _add(counts: list[dict[str, int]]) -> dict[str, int]:
    added: dict[str, int] = {}
    for count in counts:
        for key, n in count.items():
            added[key] = added.get(key, 0) + n
    return added
