"""edgekit export"""

from collections.abc import Iterable
from typing import Any

import click

from edgekit.cli import options
from edgekit.cli.loading import loading


@click.command()
@options.model
@options.cut
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder to write.")
@options.dataset
@options.codec
@options.rate
@click.option(
    "--batch",
    type=click.IntRange(2, 4096),
    default=32,
    help="Images of a training step, for the bytes of --target-bytes and --max-accuracy-drop.",
)
@options.network
@options.board
@options.seed
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@options.as_json
def export(**given: Any) -> None:
    """Cut MODEL at a layer and write a bundle for server and devices.

    MODEL is a built-in name (`edgekit models`) or your own network as package.module:factory, a function without
    arguments that returns a torch.nn.Module. The dataset gives the calibration images, the classes and their names,
    and, unless --mean and --std say otherwise, the normalisation. `edgekit cuts MODEL` lists the layers to cut at,
    `edgekit devices` the boards. A graph that the board's converter does not accept is refused with the reason.

    \b
    edgekit export vgg11 --dataset digits -o bundle
    edgekit export vgg11 --dataset digits --target-bytes 300 -o bundle
    edgekit export resnet18 --cut layer2.1 --dataset cifar10 --data DIR --device jetson-nano -o bundle
    edgekit export mynet.model:make --weights trained.safetensors --input 3,224,224 --cut features.4 \\
        --dataset folder --data images/ --device jetson -o bundle
    """
    from rich.console import Console

    from edgekit.cli import rate, settings

    with loading():
        from edgekit.export.named import export_named
        from edgekit.export.settings import Coding

    codec, output = rate.codec(given), given["output"]
    calibration = settings.data(given).load(given["seed"])
    with rate.goal(given) as goal:
        bundle = export_named(
            output,
            settings.network(given),
            calibration,
            Coding(codec, given["significance"], goal),
            settings.board(given),
            seed=given["seed"],
            overwrite=given["force"],
        )
    if settings.hint(given):
        click.echo(settings.hint(given), err=True)
    told = f"{bundle.model} cut at {bundle.cut}"
    screen = Console(stderr=given["as_json"], highlight=False)
    rate.show(screen, bundle.manifest.get("rate"), told, given["rate_plot"])
    if given["as_json"]:
        chosen_rate = {name: bundle.manifest[name] for name in ("gradient", "rate") if name in bundle.manifest}
        options.print_json(
            {
                "bundle": output,
                "digest": bundle.digest,
                "cut": bundle.cut,
                "feature": bundle.feature_shape,
                "codec": bundle.manifest["codec"],
                **chosen_rate,
            }
        )
        return
    click.echo(f"{output}: {told}, feature {'x'.join(map(str, bundle.feature_shape))}")
    click.echo(f"for {bundle.device['name']}; batch norm while learning: {bundle.norm}; to learn on: {bundle.provider}")
    if bundle.provider_reason:
        click.echo(f"not to learn on {bundle.wanted_provider}: {bundle.provider_reason}")
    click.echo(f"images are normalised by mean {_listed(bundle.mean)}, std {_listed(bundle.std)}")
    click.echo(f"next: edgekit check {output}; edgekit serve {output} --listen 127.0.0.1:50051", err=True)


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
