"""Watch: what the server thinks of each device's batches, so that one bad device cannot ruin the model for all.

::

    a batch's look  --look--> why the batch is left out of the step, or None
    a step's losses --learned--> evidence against devices that learn nothing while their peers do
    verdict, warning <-- batches left out in a row, and evidence

A batch is judged by its features before it is trained on: not finite, far too large, all images alike, white noise, or
the same batch over and over. Labels that do not belong to their images show only in the losses.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.server.look import ALIKE, Look, repeated

#: Batches left out in a row that make a device be quarantined.
STRIKES = 5
#: The same of all devices at once: then it is not the devices.
ALL_STRIKES = 3
#: A batch is too large when its size is this many times what is usual.
LARGE = 10.0
#: Images are noise when their coherence is below this share of that of the device's peers, which differ by a factor of
#: 2, but no more than `COHERENT`. Of a device without peers nothing is said: features of 4x4 and less, before anything
#: is learned, have the coherence of noise.
NOISE, COHERENT = 0.25, 40.0
#: Fewest images that are not all alike, and fewest that are not in the places of the batch before, by chance.
FEW_ALIKE, FEW_REPEATED = 4, 12
#: A batch is the one before when this share of its images are in the same places.
SAME = 0.75
#: What a mean over the latest steps keeps in each, and what the labels' counts keep.
KEPT, KEPT_COUNTS = 0.8, 0.95
#: A device learns nothing when its loss is above the first, in units of what guessing gives it. Its peers learn when
#: the loss of the middle one is below its own by the second, in units of ln(classes).
NOTHING, AHEAD = 0.9, 0.2
#: So many steps in which a device learns nothing while its peers do; of a device with fewer images than its peers more.
WARNED, CONVICTED = 4.0, 12.0
#: A run diverges when its loss is more than so many times guessing for so many steps.
RUINED, RUINED_STEPS = 2.0, 50


@dataclass
class Record:
    """What is known of one device."""

    #: Batches left out in a row, and why the latest was.
    strikes: int = 0
    reason: str = ""
    #: Of its latest batch, see `Look`.
    outline: np.ndarray | None = None
    #: Means over its latest batches that were not left out.
    size: float | None = None
    coherence: float | None = None
    loss: float | None = None
    #: The loss of who knows only how frequent each class is among all devices: much for a device with rare classes.
    guessing: float | None = None
    images: float | None = None
    #: Steps in which it learned nothing while its peers did; fades while it learns.
    evidence: float = 0.0
    verdict: str | None = None


@dataclass
class Watch:
    """The records of all devices. A deep copy goes on as the original would.

    `golden_size`: see `edgekit.server.look.golden_size`. Where front halves are not `in_step`, one that does not fit
    the back half has high losses too: then losses only warn.
    """

    classes: int
    golden_size: float | None = None
    in_step: bool = True
    records: dict[str, Record] = field(default_factory=dict)
    #: Mean loss over all images of the latest steps, and how many steps in a row it was ruinous.
    loss: float | None = None
    ruined: int = 0
    #: (classes,) how often each label came in the latest steps.
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.ones(self.classes)

    def state(self) -> dict[str, Any]:
        """All of it but what it was begun with, as a state (`edgekit.statefile`)."""
        records = {device: dict(vars(record)) for device, record in self.records.items()}
        return {"records": records, "loss": self.loss, "ruined": self.ruined, "counts": self.counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`."""
        self.records = {device: Record(**record) for device, record in state["records"].items()}
        self.loss, self.ruined, self.counts = state["loss"], state["ruined"], state["counts"]

    def look(self, device: str, seen: Look, share: int) -> str | None:
        """Before a step: why the batch that was `seen` must be left out of it, or None.

        `share`: how many training images the device has.
        """
        record = self.records.setdefault(device, Record())
        why = self._wrong(device, seen) or _repeats(record, seen, share)
        record.outline = seen.outline
        if why is None:
            record.strikes = 0
            record.size = _mean(record.size, seen.size)
            if seen.coherence is not None:
                record.coherence = _mean(record.coherence, seen.coherence)
            return None
        record.strikes, record.reason = record.strikes + 1, why
        if record.strikes >= STRIKES and record.verdict is None:
            record.verdict = f"{record.strikes} batches in a row were left out: {why}"
        return why

    def learned(self, outcomes: Mapping[str, tuple[float, np.ndarray]]) -> None:
        """After a step: for each device in it the mean loss of its images, and their labels (n,), integers."""
        joint = np.concatenate([labels for _, labels in outcomes.values()])
        mean = sum(loss * len(labels) for loss, labels in outcomes.values()) / len(joint)
        self.loss = _mean(self.loss, mean)
        self.ruined = self.ruined + 1 if self.loss > RUINED * self._guessing else 0
        self.counts = KEPT_COUNTS * self.counts + np.bincount(joint, minlength=self.classes)
        surprise = -np.log((self.counts + 1) / (self.counts + 1).sum())
        for device, (loss, labels) in outcomes.items():
            record = self.records.setdefault(device, Record())
            record.loss = _mean(record.loss, loss)
            record.guessing = _mean(record.guessing, float(surprise[labels].mean()))
            record.images = _mean(record.images, len(labels))
        for device, (loss, _) in outcomes.items():
            self._weigh(self.records[device], loss, self._peers(device))

    def warning(self, device: str) -> str | None:
        """A short text for a device that begins to stand out, or None."""
        record = self.records.get(device, Record())
        if record.verdict is not None:
            return None
        if record.strikes:
            return f"batch left out: {record.reason}"
        if record.evidence >= WARNED:
            return "the loss of its images stays at that of guessing while others learn: do its labels belong to them?"
        return None

    def verdict(self, device: str) -> str | None:
        """Why the device is to be left out for good, or None."""
        return self.records.get(device, Record()).verdict

    def forget(self, device: str) -> None:
        """For a device that leaves: peers are no longer compared with it. A verdict stays."""
        if device in self.records and self.records[device].verdict is None:
            del self.records[device]

    def diverged(self) -> str | None:
        """Why the whole run is lost, or None."""
        present = [record for record in self.records.values() if record.verdict is None]
        if len(present) > 1 and all(record.strikes >= ALL_STRIKES for record in present):
            return (
                f"the latest {ALL_STRIKES} batches of every device stand out ({present[0].reason}): training diverged, "
                "lower --lr"
            )
        if self.ruined < RUINED_STEPS:
            return None
        return (
            f"the loss is {self.loss:.2f}, and was more than {RUINED:g} times that of guessing, {self._guessing:.2f}, "
            f"for {self.ruined} steps: training diverged, lower --lr"
        )

    @property
    def _guessing(self) -> float:
        return math.log(max(2, self.classes))

    def _peers(self, device: str) -> list[Record]:
        return [record for name, record in self.records.items() if name != device and record.verdict is None]

    def _wrong(self, device: str, seen: Look) -> str | None:
        """What is wrong with a batch by itself."""
        if not seen.finite:
            return "features are not finite: did its training diverge?"
        sizes = [peer.size for peer in self._peers(device) if peer.size is not None]
        usual = _low_median(sizes + ([self.golden_size] if self.golden_size is not None else []))
        own = self.records[device].size
        # Features may grow in training, step by step.
        if usual is not None and seen.size > LARGE * max(usual, own or 0.0):
            return (
                f"features of size {seen.size:.3g} where {usual:.3g} is usual: are weights or codebooks broken, or is "
                "--lr too high?"
            )
        if seen.images >= FEW_ALIKE and seen.variety < ALIKE:
            return f"all {seen.images} images are the same: is the camera covered, or its training broken?"
        coherences = [peer.coherence for peer in self._peers(device) if peer.coherence is not None]
        ordinary = _low_median(coherences)
        if seen.coherence is not None and ordinary is not None and seen.coherence < NOISE * min(ordinary, COHERENT):
            return f"the images are noise: coherence {seen.coherence:.1f} where {ordinary:.1f} is usual; broken camera?"
        return None

    def _weigh(self, record: Record, latest: float, peers: list[Record]) -> None:
        """Evidence that the device of `record` learns nothing while the middle one of its peers does."""
        losses = [peer.loss for peer in peers if peer.loss is not None]
        images = [peer.images for peer in peers if peer.images is not None]
        assert record.loss is not None and record.guessing is not None and record.images is not None
        # The latest, too: the mean of one that joined late comes down after its losses.
        if not losses or min(record.loss, latest) < NOTHING * max(record.guessing, self._guessing):
            record.evidence *= KEPT
            return
        middle = sorted(losses)[len(losses) // 2]
        # Peers that learn nothing either prove nothing.
        if middle < NOTHING * self._guessing and record.loss - middle >= AHEAD * self._guessing:
            record.evidence += min(1.0, record.images / sorted(images)[len(images) // 2])
        if record.evidence >= CONVICTED and record.verdict is None and self.in_step:
            record.verdict = (
                f"the loss of its images stays at {record.loss:.2f}, guessing has {record.guessing:.2f} and its peers "
                f"{middle:.2f}: do its labels belong to them?"
            )


def _repeats(record: Record, seen: Look, share: int) -> str | None:
    """What is wrong with a batch next to the device's one before; a share of one batch repeats rightly."""
    before = record.outline
    if before is None or len(before) != seen.images or seen.images < FEW_REPEATED or share < 2 * seen.images:
        return None
    if repeated(before, seen.outline) < SAME:
        return None
    return f"the same {seen.images} images as in the batch before, of a share of {share}: is its data loader stuck?"


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else KEPT * mean + (1 - KEPT) * value


def _low_median(values: list[float]) -> float | None:
    """The middle one of `values`, of two the lower; None of none."""
    return sorted(values)[(len(values) - 1) // 2] if values else None
