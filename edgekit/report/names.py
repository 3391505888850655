"""The names of records and codecs in tables and legends."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from edgekit.report.records import Federated, Measure, Records, Row, Scaling, ToAccuracy, Training

#: The codecs' short names in `edgekit measure` and in the papers.
SHORT = {"raw": "fp32", "uniform": "uq", "product": "pq", "slicing": "clio"}
#: Field in which runs of one codec may differ -> its words in a run's name.
TELLING = {
    "calibrate": "{}", "in_flight": "{} in flight", "link": "{}", "devices": "{} devices", "mode": "{}",
    "sync_every": "rounds every {}", "epochs": "{} epochs",
    "limit": "{} images", "augment": "augmented by {}", "batch": "batch {}", "lr": "lr {}", "seed": "seed {}",
}  # fmt: skip


def short(codec: str) -> str:
    """The short name of a codec; it decides the colour."""
    return SHORT.get(codec, codec)


def codec_words(codec: str, config: Mapping[str, Any] | None) -> str:
    """ "sgq groups 8 bits 4": a codec and its settings."""
    return " ".join([codec, *(f"{key} {value}" for key, value in (config or {}).items())])


def subject(row: Row) -> str:
    """Model and dataset of a run or an accuracy row; runs are in one chart only if they have the same."""
    return f"{row['model']}, {row.get('dataset') or 'unknown data'}"


def named_measures(records: Records) -> list[tuple[str, Measure]]:
    """Each measure record after its name: model, dataset, device; and a number where two would be equal."""
    settings = [measure.data["setting"] for measure in records.measures]
    parts = [[each["model"], each.get("dataset"), each.get("device") or "cpu"] for each in settings]
    names = _numbered(", ".join(part for part in each if part) for each in parts)
    return list(zip(names, records.measures, strict=True))


def named_scalings(records: Records) -> list[tuple[str, Scaling]]:
    """Each record of scaling after its name: model, dataset, device, and what share of a core a device had."""
    parts = []
    for setting in (scaling.data["setting"] for scaling in records.scalings):
        share = setting.get("device_share")
        words = [setting["model"], setting.get("dataset"), setting.get("device") or "cpu"]
        parts.append([*words, f"{share:g} of a core each" if share else None])
    names = _numbered(", ".join(part for part in each if part) for each in parts)
    return list(zip(names, records.scalings, strict=True))


def named_to_accuracies(records: Records) -> list[tuple[str, ToAccuracy]]:
    """Each record of the time to an accuracy after its name: model, dataset, device, and how its seconds came."""
    parts = []
    for data in (each.data for each in records.to_accuracies):
        setting = data["setting"]
        parts.append([setting["model"], setting.get("dataset"), setting.get("device") or "cpu", data["line"]])
    names = _numbered(", ".join(part for part in each if part) for each in parts)
    return list(zip(names, records.to_accuracies, strict=True))


def named_federated(records: Records) -> list[tuple[str, Federated]]:
    """Each run of federated learning after its name: its codecs, and the strategy where it is not plain averaging."""
    names = []
    for run in (each.run for each in records.federated):
        down = "" if run["down_codec"] == "none" else f", down {run['down_codec']}"
        names.append(run["update_codec"] + down + ("" if run["strategy"] == "fedavg" else f", {run['strategy']}"))
    return list(zip(_numbered(names), records.federated, strict=True))


def named_runs(trainings: Iterable[Training]) -> list[tuple[str, Training]]:
    """Each run after its name: its codec, and the fields in which runs of one model and dataset differ."""
    runs = list(trainings)
    names = []
    for run in (training.run for training in runs):
        alike = [other.run for other in runs if subject(other.run) == subject(run)]
        differs = [key for key in TELLING if len({str(other.get(key)) for other in alike}) > 1]
        words = [_words(key, run[key]) for key in differs if run.get(key) is not None]
        # Numbers are given among the runs of one subject only.
        names.append(f"{subject(run)}\n{', '.join([codec_words(run['codec'], run.get('codec_config')), *words])}")
    return [(name.rpartition("\n")[2], run) for name, run in zip(_numbered(names), runs, strict=True)]


def ended_runs(records: Records) -> list[tuple[str, Row, Row]]:
    """Name, fields and summary of each run that came to its end."""
    runs = named_runs(training for training in records.trainings if training.summary)
    return [(name, training.run, training.summary) for name, training in runs if training.summary]


def _words(key: str, value: Any) -> str:
    words = TELLING[key].format(value)
    return words.removesuffix("s") if value == 1 else words


def _numbered(names: Iterable[str]) -> list[str]:
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return numbered
