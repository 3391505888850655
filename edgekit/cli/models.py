"""edgekit models"""

import click

from edgekit.cli import options


@click.command()
@options.as_json
def models(as_json: bool) -> None:
    """List the built-in models and their default cuts."""
    from edgekit.export.models.registry import MODELS, default_cut

    rows = {name: default_cut(name) for name in sorted(MODELS)}
    if as_json:
        options.print_json(rows)
        return
    for name, cut in rows.items():
        click.echo(f"{name:16} cut at {cut}")
