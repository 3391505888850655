"""The section on federated learning: what each run came to, and accuracy by rounds and by bytes."""

from itertools import accumulate

from edgekit.report.content import Cell, Chart, Column, Plot, Section, Series, Table, text_columns
from edgekit.report.names import named_federated
from edgekit.report.palette import colours
from edgekit.report.records import Federated, Records


def section(records: Records) -> Section | None:
    """A table of all runs, and their curves."""
    named = [(name, run) for name, run in named_federated(records) if any("accuracy" in each for each in run.rounds)]
    text = (
        "Whole networks, trained on clients and averaged by a server. Bytes are those of the messages of all clients, "
        "as the server counts them; the codecs' formula stands apart."
    )
    return Section("federated", "Federated learning", text, [_table(named)], _charts(named)) if named else None


def _table(named: list[tuple[str, Federated]]) -> Table:
    rows: list[list[Cell]] = []
    for name, run in named:
        tested = [each["accuracy"] for each in run.rounds if each.get("accuracy") is not None]
        up, down, whole = (
            sum(each[key] * (each["clients"] if key == "bytes_whole" else 1) for each in run.rounds)
            for key in ("bytes_up", "bytes_down", "bytes_whole")
        )
        formula = sum(each.get("formula_bytes_up") or 0.0 for each in run.rounds)
        about = f"{run.run['model']}, {run.run.get('dataset')}"
        rows.append([
            about, name, run.run["clients"], len(run.rounds), tested[-1], max(tested), up / 1e6,
            formula / 1e6 or None, down / 1e6, whole / up if up else None, whole / down if down else None,
        ])  # fmt: skip
    columns = [
        *text_columns("network", "codecs"), Column("clients"), Column("rounds"), Column("accuracy", "%"),
        Column("best", "%"), Column("up", "MB"), Column("up, by formula", "MB"), Column("down", "MB"),
        Column("below whole weights, up", suffix="x"), Column("down", suffix="x"),
    ]  # fmt: skip
    return Table("Federated learning", columns, rows)


def _charts(named: list[tuple[str, Federated]]) -> list[Chart]:
    shown = colours(run.run["update_codec"].partition(":")[0] for _, run in named)
    by_round, by_bytes = [], []
    for (name, run), colour in zip(named, shown, strict=True):
        sent = accumulate((each["bytes_up"] + each["bytes_down"]) / 1e6 for each in run.rounds)
        points = [
            (each["round"], mb, each["accuracy"])
            for each, mb in zip(run.rounds, sent, strict=True)
            if each.get("accuracy") is not None
        ]
        numbers, bytes_sent, right = zip(*points, strict=True)
        by_round.append(Series(name, colour, numbers, right))
        by_bytes.append(Series(name, colour, bytes_sent, right))
    log = all(x > 0 for each in by_bytes for x in each.x)
    return [
        Plot("Accuracy by rounds", "rounds", "test accuracy, %", by_round),
        Plot("Accuracy against bytes", "sent both ways, all clients, MB", "test accuracy, %", by_bytes, log_x=log),
    ]
