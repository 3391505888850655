"""edgekit export"""

from collections.abc import Iterable

import click

from edgekit.cli import options


@click.command()
@options.model
@options.cut
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder to write.")
@options.dataset
@options.codec
@options.network
@options.board
@options.seed
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@options.as_json
def export(
    model: str,
    cut: str | None,
    output: str,
    dataset: str,
    data: str | None,
    limit: int | None,
    codec: str,
    bits: int,
    groups: int,
    calibration: int,
    input_shape: str | None,
    weights: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    device: str,
    norm: str | None,
    static_batch: int,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Cut MODEL at a layer and write a bundle for server and devices.

    MODEL is a built-in name (`edgekit models`) or your own network as package.module:factory, a function without
    arguments that returns a torch.nn.Module. The dataset gives the calibration images, the number of classes and,
    unless --mean and --std say otherwise, the normalisation. `edgekit cuts MODEL` lists the layers to cut at;
    `edgekit devices` the boards: the graph is held to what the board's converter takes, or refused with the reason.

    \b
    edgekit export vgg11 --dataset digits -o bundle
    edgekit export resnet18 --cut layer2.1 --dataset cifar10 --data DIR --device jetson-nano -o bundle
    edgekit export mynet.model:make --weights trained.safetensors --input 3,224,224 --cut features.4 \\
        --dataset folder --data images/ --device jetson -o bundle
    """
    from edgekit.codecs.registry import feature_codec
    from edgekit.data import registry
    from edgekit.export.named import export_named

    chosen = feature_codec(codec, options.codec_config(codec, bits, groups))
    images = registry.load(dataset, data, limit, seed)
    bundle = export_named(
        model, output, cut=cut, dataset=images, codec=chosen, input_shape=input_shape, calibration=calibration,
        seed=seed, overwrite=force, weights=weights, device=device, norm=norm, batch_size=static_batch, mean=mean,
        std=std,
    )  # fmt: skip
    if as_json:
        options.print_json(
            {"bundle": output, "digest": bundle.digest, "cut": bundle.cut, "feature": bundle.feature_shape}
        )
        return
    click.echo(f"{output}: {bundle.model} cut at {bundle.cut}, feature {'x'.join(map(str, bundle.feature_shape))}")
    click.echo(f"for {bundle.device['name']}; batch norm while learning: {bundle.norm}")
    click.echo(f"images are normalised by mean {_listed(bundle.mean)}, std {_listed(bundle.std)}")
    click.echo(f"next: edgekit check {output}; edgekit serve {output} --listen 127.0.0.1:50051", err=True)


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
