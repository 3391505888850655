"""The section on the devices of training runs and on the classes: who learned what, and who was left out."""

from collections.abc import Iterable
from typing import Any

from edgekit.report.content import Bars, Cell, Chart, Column, Section, Table, text_columns
from edgekit.report.names import ended_runs, named_runs, subject
from edgekit.report.numbers import number
from edgekit.report.records import Records, Row

#: Most classes that a chart shows.
MOST = 20
#: Field of the "fleet" in a summary -> the head of its column.
STEPS = {
    "steps": "steps of the server", "steps_without_some": "without some device", "rounds": "rounds",
    "late_updates": "updates too late",
}  # fmt: skip


def section(records: Records) -> Section | None:
    """The section: each run's fleet, its devices, its classes, and the devices in quarantine."""
    ended = [(f"{subject(run)}: {name}", run, end) for name, run, end in ended_runs(records)]
    tables = [_fleets(ended)]
    charts: list[Chart] = []
    for name, run, end in ended:
        classes = _classes(name, run, end)
        tables += [_devices(name, end), classes]
        charts += _chart(classes)
    tables.append(_quarantined(records))
    tables = [table for table in tables if table.rows]
    text = (
        "At the end of each run. Balanced accuracy is the mean over the classes, so that rare ones count as much. "
        "Devices whose front halves are averaged test a share of the test images each, others all of them."
    )
    return Section("devices", "Devices and classes", text, tables, charts) if tables else None


def _fleets(ended: Iterable[tuple[str, Row, Row]]) -> Table:
    rows: list[list[Cell]] = []
    for name, run, end in ended:
        fleet = end.get("fleet")
        if fleet:
            again = {True: "yes", False: "no", None: None}[fleet.get("repeatable")]
            rows.append([name, run.get("devices"), end["accuracy"], end.get("balanced_accuracy"),
                         end.get("validation_accuracy"), *(fleet.get(key) for key in STEPS), again])  # fmt: skip
    columns = [
        *text_columns("run"), Column("devices"), Column("accuracy", "%"), Column("balanced accuracy", "%"),
        Column("validation accuracy", "%"), *(Column(head) for head in STEPS.values()),
        *text_columns("same seed, same weights"),
    ]  # fmt: skip
    return Table("Fleets", columns, rows)


def _devices(name: str, end: Row) -> Table:
    def of(field: str) -> dict[str, Any]:
        return end.get(field) or {}

    accuracy = of("accuracy_by_device")
    others = [of(field) for field in ("balanced_accuracy_by_device", "train_accuracy_by_device", "images_by_device")]
    rows: list[list[Cell]] = [[device, accuracy[device], *(each.get(device) for each in others)] for device in accuracy]
    columns = [
        *text_columns("device"), Column("accuracy", "%"), Column("balanced accuracy", "%"),
        Column("accuracy in training", "%"), Column("images trained on"),
    ]  # fmt: skip
    return Table(f"Accuracy by device: {name}", columns, rows)


def _classes(name: str, run: Row, end: Row) -> Table:
    accuracy, images = end.get("accuracy_by_class") or [], end.get("images_tested_by_class") or []
    names = run.get("class_names") or []
    rows: list[list[Cell]] = [
        [names[i] if i < len(names) else str(i), images[i] if i < len(images) else None, value]
        for i, value in enumerate(accuracy)
    ]
    columns = [*text_columns("class"), Column("images tested"), Column("accuracy", "%")]
    return Table(f"Accuracy by class: {name}", columns, rows)


def _chart(table: Table) -> list[Chart]:
    """The classes that are recognised worst, the worst first."""
    known = [(float(accuracy), str(name), images) for name, images, accuracy in table.rows
             if isinstance(accuracy, (int, float))]  # fmt: skip
    known.sort(key=lambda each: each[0])
    shown = known[:MOST]
    if not shown:
        return []
    note = f"The worst {MOST} of {len(known)}; the table has all." if len(known) > MOST else ""
    right = [min(accuracy, 100.0) for accuracy, _, _ in shown]
    parts = [("right", 0, right), ("wrong", 1, [100.0 - value for value in right])]
    totals = [f"{number(value)} % of {images}" if isinstance(images, int) else f"{number(value)} %"
              for value, (_, _, images) in zip(right, shown, strict=True)]  # fmt: skip
    return [Bars(table.title, "share of the test images of a class, %", [name for _, name, _ in shown], parts, totals,
                 note=note)]  # fmt: skip


def _quarantined(records: Records) -> Table:
    rows: list[list[Cell]] = [
        [f"{subject(each.run)}: {name}", device, reason]
        for name, each in named_runs(records.trainings)
        for device, reason in sorted(each.quarantined.items())
    ]
    return Table("Devices in quarantine", text_columns("run", "device", "why"), rows)
