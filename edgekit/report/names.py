"""The names of records and codecs in tables and legends, and which of a record's depths its tables show."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekit.report.records import Measure, Training

#: The codecs' short names in `edgekit measure` and in the papers.
SHORT = {"raw": "fp32", "uniform": "uq", "product": "pq", "slicing": "clio"}
#: Field in which runs of one codec may differ -> its words in a run's name.
TELLING = {
    "calibrate": "{}", "in_flight": "{} in flight", "link": "{}", "devices": "{} devices", "epochs": "{} epochs",
    "limit": "{} images", "batch": "batch {}", "lr": "lr {}", "seed": "seed {}",
}  # fmt: skip


def short(codec: str) -> str:
    """The short name of a codec; it decides the colour."""
    return SHORT.get(codec, codec)


def codec_words(codec: str, config: Mapping[str, Any] | None) -> str:
    """ "sgq groups 8 bits 4": a codec and its settings."""
    return " ".join([codec, *(f"{key} {value}" for key, value in (config or {}).items())])


def measure_names(measures: Sequence[Measure]) -> list[str]:
    """A name for each record: model, dataset, device; and a number where two would be equal."""
    settings = [measure.data["setting"] for measure in measures]
    parts = [[each["model"], each.get("dataset"), each.get("device") or "cpu"] for each in settings]
    return _numbered(", ".join(part for part in each if part) for each in parts)


def run_names(trainings: Sequence[Training]) -> list[str]:
    """A name for each run: its codec, and the fields in which runs of one model and dataset differ."""
    names = []
    for training in trainings:
        alike = [other.run for other in trainings if subject(other) == subject(training)]
        differs = [key for key in TELLING if len({str(run.get(key)) for run in alike}) > 1]
        words = [_words(key, training.run[key]) for key in differs if training.run.get(key) is not None]
        name = codec_words(training.run["codec"], training.run.get("codec_config"))
        names.append((*subject(training), ", ".join([name, *words])))
    return [name.rpartition("\n")[2] for name in _numbered("\n".join(each) for each in names)]


def _words(key: str, value: Any) -> str:
    words = TELLING[key].format(value)
    return words.removesuffix("s") if value == 1 else words


def subject(training: Training) -> tuple[str, str]:
    """Model and dataset; runs are in one chart only if they have the same."""
    return training.run["model"], training.run.get("dataset") or "unknown data"


def depth(measure: Measure) -> int:
    """The depth that a record's tables show: that of most of its results, the smallest among equals."""
    counts = Counter(row["in_flight"] for row in measure.data["results"])
    return min(counts, key=lambda each: (-counts[each], each), default=1)


def _numbered(names: Iterable[str]) -> list[str]:
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return numbered
