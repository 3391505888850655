"""edgekit models"""

import click

from edgekit.cli import options


@click.command()
@click.argument("model", metavar="[MODEL]", required=False)
@click.option("--input", "input_shape", default="3,32,32", metavar="C,H,W", help="Input shape.")
@click.option("--classes", type=int, help="Classes that it tells apart (default: 10, or your network's own).")
@options.as_json
def models(model: str | None, input_shape: str, classes: int | None, as_json: bool) -> None:
    """List the built-in models with default cut and parameters, or the layers that MODEL can be cut at.

    MODEL may also be your own network, package.module:factory. `edgekit cuts MODEL` says more about each layer.

    \b
    edgekit models --input 3,224,224 --classes 1000
    edgekit models resnet18
    """
    from edgekit.export.models.listing import layers, listing
    from edgekit.export.named import parse_shape

    shape = parse_shape(input_shape)
    if model is None:
        rows = listing(shape, classes)
        if as_json:
            options.print_json({row.name: {"cut": row.cut, "parameters": row.parameters} for row in rows})
            return
        for row in rows:
            click.echo(f"{row.name:20} cut at {row.cut:20} {row.parameters:>13,} parameters")
        return
    cut, points = layers(model, shape, classes)
    if as_json:
        options.print_json({"model": model, "cut": cut, "layers": points})
        return
    for point in points:
        click.echo(f"{point}  (default)" if point == cut else point)
