"""Report of records: every section that has data, and for the others the command that would measure it."""

from collections.abc import Callable, Sequence

from edgekit.errors import UnknownName, UsageError
from edgekit.report import (
    accuracy,
    federated,
    fleet,
    flight,
    machines,
    scaling,
    speed,
    timing,
    to_accuracy,
    traffic,
    training,
)  # fmt: skip
from edgekit.report.content import Report, Section
from edgekit.report.records import Records

MEASURE = "edgekit measure MODEL --codecs fp32,uq,sgq --links 1mbit,10mbit,100mbit --out measure.json"
SCALE = "edgekit measure MODEL --codecs sgq --devices 1,2,4,8 --out scaling.json"
TO_ACCURACY = "edgekit measure MODEL --to-accuracy 90 --out to-accuracy.json"
FEDERATE = "edgekit federate MODEL --update-codec CODEC --out DIR"
TRAIN = "edgekit train MODEL --dataset DATASET --codec sgq --out DIR"
#: Section -> (its title when it has no data, the function that makes it, the command that measures its data).
SECTIONS: dict[str, tuple[str, Callable[[Records], Section | None], str]] = {
    "speed": ("Speed", speed.section, MEASURE),
    "bytes": ("Bytes per image", traffic.section, MEASURE),
    "time": ("Time", timing.section, MEASURE),
    "in-flight": ("Batches in flight", flight.section, MEASURE.replace(" --out", " --in-flight 1,2,4 --out")),
    "scaling": ("Scaling", scaling.section, SCALE),
    "to-accuracy": ("Time to an accuracy", to_accuracy.section, TO_ACCURACY),
    "accuracy": ("Accuracy against bytes", accuracy.section, TRAIN),
    "convergence": ("Convergence", training.convergence, TRAIN),
    "loss": ("Losses", training.losses, TRAIN),
    "devices": ("Devices and classes", fleet.section, TRAIN),
    "codebooks": ("Codebook health", training.codebooks, TRAIN),
    "federated": ("Federated learning", federated.section, FEDERATE),
    "machine": ("Machine and commands", machines.section, MEASURE),
}


def build(records: Records, only: Sequence[str] = ()) -> Report:
    """The report of `records`; with `only`, just these sections."""
    for name in only:
        if name not in SECTIONS:
            raise UnknownName("section", name, SECTIONS, f"there are: {', '.join(SECTIONS)}")
    built = {name: make(records) for name, (_, make, _) in SECTIONS.items() if not only or name in only}
    sections = [section for section in built.values() if section]
    if not sections:
        sources = ", ".join(_sources(records)) or "no records"
        raise UsageError(f"nothing to report on in {sources}: the records hold no results of what was asked for")
    missing = [SECTIONS[name][::2] for name, section in built.items() if not section]
    found = machines.warnings(records)
    return Report(_title(records), _sources(records), found, speed.headlines(records), sections, missing)


def _sources(records: Records) -> list[str]:
    return [each.path for kind in records for each in kind]


def _title(records: Records) -> str:
    """The report's title: the models of the records."""
    models = [each.data["setting"]["model"] for each in records.measures]
    models += [each.data["setting"]["model"] for each in records.scalings]
    models += [each.data["setting"]["model"] for each in records.to_accuracies]
    models += [each.run["model"] for each in records.trainings]
    models += [each.run["model"] for each in records.federated]
    models += [row["model"] for table in records.accuracies for row in table.rows]
    return f"edgekit: {', '.join(dict.fromkeys(models))}"
