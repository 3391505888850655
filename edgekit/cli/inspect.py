"""edgekit inspect"""

import click

from edgekit.cli import options

#: Most names of classes that are shown.
SHOWN = 10


@click.command()
@options.bundle
@options.as_json
def inspect(bundle: str, as_json: bool) -> None:
    """Verify a bundle and show what is in it.

    Every file is checked against the hash in the manifest. Exit code 5 when one does not match.
    """
    from edgekit.bundle import open_bundle
    from edgekit.codecs.features.sgq import SGQ

    opened = open_bundle(bundle)
    if as_json:
        options.print_json({"digest": opened.digest, **opened.manifest})
        return
    manifest = opened.manifest
    click.echo(f"bundle   {opened.digest}")
    click.echo(f"model    {opened.model}, cut at {opened.cut}, {opened.classes} classes")
    if opened.class_names:
        click.echo(f"classes  {_listed(opened.class_names)}")
    click.echo(f"image    {'x'.join(map(str, opened.input_shape))} float32")
    click.echo(f"normal   mean {opened.mean.tolist()}, std {opened.std.tolist()}")
    click.echo(f"device   {opened.device['name']}, batch norm: {opened.norm}")
    click.echo(f"feature  {'x'.join(map(str, opened.feature_shape))}, coded by {opened.codec!r}")
    click.echo(f"learns   {_listed(opened.learned)}")
    if isinstance(opened.codec, SGQ):
        click.echo(f"indices  grouping {opened.codec.grouping}, coding {opened.codec.coding}")
    if "rate" in manifest:
        rate = manifest["rate"]
        goal = ", ".join(f"--{key.replace('_', '-')} {value:g}" for key, value in rate["goal"].items())
        click.echo(f"rate     {rate['bytes']:.0f} B a training image, gradient {opened.gradient}, chosen for {goal}")
    for name, graph in opened.graphs.items():
        click.echo(f"graph    {name}: {len(graph.inputs)} inputs, {len(graph.held)} held, {len(graph.outputs)} outputs")
    for name, entry in sorted(manifest["files"].items()):
        click.echo(f"file     {entry['sha256'][:16]} {entry['bytes']:>10} B  {name}")
    click.echo("every hash is right")


def _listed(names: tuple[str, ...]) -> str:
    """The first of `names`, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
