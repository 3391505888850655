"""edgekit report"""

import json
import os

import click

from edgekit.cli import options

FORMATS = ("html", "md", "json", "png")
ON_SCREEN = ("md", "json")


@click.command()
@click.argument("records", metavar="RECORD...", nargs=-1, required=True)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="html, md, json or png (default: by -o's ending, else html)."
)
@click.option(
    "-o", "--out", metavar="FILE", help="Where to write (default: report.html or report.png; md and json: screen)."
)
@click.option(
    "--only", metavar="NAME,NAME",
    help="These sections alone: speed, bytes, time, in-flight, scaling, to-accuracy, accuracy, convergence, loss, "
    "devices, codebooks, federated, machine."
)  # fmt: skip
def report(records: tuple[str, ...], form: str | None, out: str | None, only: str | None) -> None:
    """Show what was measured and trained: one page, with tables and charts.

    A RECORD is a file of `edgekit measure`, the record.jsonl of `edgekit train --out DIR` or of `edgekit federate
    --out DIR` (or DIR), or a table of accuracy rows; its content tells which. Several records make one report. The page
    is a single file that opens without a network; md has its tables for a README, json the numbers behind tables and
    charts, png the main charts. A section without data is left out, and the page names the command that would measure
    it.

    \b
    edgekit report measure.json                             # report.html
    edgekit report measure.json runs/raw runs/sgq -o all.html
    edgekit report measure.json --format md --only speed,bytes
    """
    from edgekit.report import figure, markdown, page
    from edgekit.report.build import build
    from edgekit.report.records import load

    ending = os.path.splitext(out or "")[1].lstrip(".").lower()
    form = form or (ending if ending in FORMATS else "html")
    if out is None and form not in ON_SCREEN:
        out = f"report.{form}"
    options.check_writable(out)
    built = build(load(records), [part.strip() for part in only.split(",")] if only else ())
    if form == "json":
        data = (json.dumps(built.to_json(), indent=1, allow_nan=False) + "\n").encode()
    elif form == "png":
        data = figure.png(built)
    else:
        data = (page if form == "html" else markdown).render(built).encode()
    if out is None:
        click.echo(data.decode(), nl=False)
        return
    options.write(out, data)
    click.echo(f"{out}: {', '.join(section.title.lower() for section in built.sections)}")
    for title, command in built.missing:
        click.echo(f"left out, no record of it: {title.lower()}; {command}")
    for warning in built.warnings:
        click.echo(f"warning: {warning}", err=True)
