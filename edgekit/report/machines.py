"""The section on machines: machine, versions, setting, warnings and command of every record."""

import shlex
from datetime import datetime, timezone
from typing import Any

from edgekit.report.content import Cell, Section, Table, text_columns
from edgekit.report.names import (
    named_federated,
    named_measures,
    named_runs,
    named_scalings,
    named_to_accuracies,
    subject,
)
from edgekit.report.records import Measure, Records, Row

SIDES = ("device", "server")


def warnings(records: Records) -> list[str]:
    """The warnings of the records, and those about putting these records together."""
    named = named_measures(records)
    found = [f"{name}: {text}" for name, measure in named for text in measure.data.get("warnings") or []]
    found += [f"{name}: {text}" for _, name, data in _trained(records) for text in data.get("warnings") or []]
    processors = {tuple(_machine(each, side).get("processor") for side in SIDES) for each in records.measures}
    if len(processors) > 1:
        found.append("the measure records are of several machines: compare within one of them only")
    unfinished = [training.path for training in records.trainings if training.summary is None]
    unfinished += [run.path for run in records.federated if not run.ended]
    return found + [f"{path} has no summary: the run did not come to its end" for path in unfinished]


def section(records: Records) -> Section | None:
    """The section: both machines of every measure record, versions of accuracy tables, and all commands."""
    tables = []
    for name, measure in named_measures(records):
        sides = {side: _machine(measure, side) for side in SIDES}
        tables += [_setting(name, measure.data), _sides_table(name, sides)]
    for kind, name, data in _trained(records):
        told = f"{kind}, {name}"
        tables += [_setting(told, data), _sides_table(told, {"devices and server": data.get("machine") or {}})]
    versions = {
        f"{key} {value}": None for table in records.accuracies for row in table.rows
        for key, value in (row.get("versions") or {}).items()
    }  # fmt: skip
    if versions:
        tables.append(Table("Accuracy rows", text_columns("made with"), [[", ".join(versions)]]))
    tables = [table for table in tables if table.rows]
    commands = _commands(records)
    return Section("machine", "Machine and commands", "", tables, (), commands) if tables or commands else None


def _trained(records: Records) -> list[tuple[str, str, Row]]:
    """Kind, name and content of each record whose processes, of whole trainings, were all on one machine."""
    found = [("scaling", name, each.data) for name, each in named_scalings(records)]
    return found + [("to an accuracy", name, each.data) for name, each in named_to_accuracies(records)]


def _machine(measure: Measure, side: str) -> dict[str, Any]:
    return (measure.data.get("machine") or {}).get(side) or {}


def _setting(name: str, record: Row) -> Table:
    setting = record["setting"]
    rows: list[list[Cell]] = []
    for key in ("model", "cut", "feature", "dataset", "images", "epochs", "batch", "device", "device_share", "host",
                "backend", "provider", "threads", "cores", "seconds", "warm_up_steps", "repeats"):  # fmt: skip
        value = setting.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{side} {_listed(each)}" for side, each in value.items())
        if value is not None:
            rows.append([key.replace("_", " "), "x".join(map(str, value)) if key == "feature" else str(value)])
    rows += [[f"codec {codec}", about["method"]] for codec, about in record["codecs"].items()]
    return Table(f"Setting: {name}", text_columns("", "value"), rows)


def _listed(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _sides_table(name: str, sides: dict[str, Row]) -> Table:
    facts = [_facts(machine) for machine in sides.values()]
    keys = dict.fromkeys(key for each in facts for key in each)
    rows: list[list[Cell]] = [[key, *(each.get(key) for each in facts)] for key in keys]
    return Table(f"Machine: {name}", text_columns("", *sides), rows)


def _facts(machine: dict[str, Any]) -> dict[str, str]:
    clocks = machine.get("clocks") or {}
    mhz = clocks.get("mhz")
    locked = {True: "locked", False: "not locked", None: "not known"}[clocks.get("locked")]
    facts = {
        "processor": machine.get("processor"),
        "cores": _listed(machine["cores"]) if machine.get("cores") is not None else None,
        "memory": f"{machine['memory_bytes'] / 2**30:.1f} GiB" if machine.get("memory_bytes") else None,
        "system": machine.get("system"),
        "Python": machine.get("python"),
        **(machine.get("versions") or {}),
        "governor": clocks.get("governor"),
        "clocks": locked + (f", {min(mhz):.0f} to {max(mhz):.0f} MHz" if mhz else "") if machine else None,
        "power mode": machine.get("power_mode"),
        **{f"{name}, \N{DEGREE SIGN}C": f"{value:g}" for name, value in (machine.get("temperatures_c") or {}).items()
           if value is not None},
    }  # fmt: skip
    return {key: str(value) for key, value in facts.items() if value is not None}


def _commands(records: Records) -> list[tuple[str, str]]:
    """(what was measured and when, its command), each command once."""
    named = named_measures(records)
    found = [(_when(name, each.data.get("time")), each.data.get("command")) for name, each in named]
    for kind, name, data in _trained(records):
        found.append((_when(f"{kind}, {name}", data.get("time")), data.get("command")))
        found += [(f"training of {each['codec']}", each.get("command")) for each in data.get("trainings") or []]
    for name, training in named_runs(records.trainings):
        time = training.run.get("time")
        if time is not None:
            time = datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        found.append((_when(f"{subject(training.run)}: {name}", time), training.run.get("command")))
    found += [(f"federated learning, {name}", each.run.get("command")) for name, each in named_federated(records)]
    rows = [row for table in records.accuracies for row in table.rows]
    found += [(f"accuracy of {row['method']}", row.get("command")) for row in rows]
    once: dict[str, str] = {}
    for about, words in found:
        if words:
            once.setdefault(_command(words), about)
    return [(about, command) for command, about in once.items()]


def _when(name: str, time: str | None) -> str:
    return f"{name}, {time}" if time else name


def _command(words: list[str]) -> str:
    """A line for a shell; records of edgekit's own commands have only the words after "edgekit"."""
    own = [] if words[0].startswith(("edgekit", "python")) or "/" in words[0] else ["edgekit"]
    return shlex.join([*own, *words])
