"""edgekit plan"""

from typing import TYPE_CHECKING, Any

import click
from rich.table import Column, Table

from edgekit.cli import options, screen

if TYPE_CHECKING:
    from edgekit.export.plan.named import Plan


@click.command()
@options.model
@click.option("--device", required=True, metavar="NAME", help="Board; `edgekit devices` lists them.")
@click.option(
    "--link",
    required=True,
    metavar="RATE[/RATE][+DELAY]",
    help="Line to the server: 10mbit, or up/down as 2mbit/10mbit, in bit, kbit, mbit or gbit a second; DELAY is the "
    "round trip as ping shows it, in us, ms or s (default: none); jitter and stalls as in `edgekit link -h`.",
)
@click.option("--devices", type=click.IntRange(1), default=1, help="Devices that take turns at the server.")
@click.option("--batch", type=click.IntRange(2, 4096), default=32, help="Images per step and device.")
@click.option("--cuts", metavar="LAYER,LAYER", help="Compare these (default: the good ones of `edgekit cuts`).")
@click.option("--all", "everything", is_flag=True, help="Compare every cut.")
@click.option("--measure", is_flag=True, help="Time front halves on this host, one thread, instead of the roofline.")
@click.option(
    "--dataset", help="Take the images from digits, mnist, cifar10, folder ... (default: random normal images)."
)
@click.option("--data", metavar="DIR", help="Where the dataset's files are.")
@click.option("--input", "input_shape", metavar="C,H,W", help="Input shape (default: the dataset's, or 3,32,32).")
@click.option("--classes", type=int, help="Classes it tells apart (default: the dataset's, 10, or your network's own).")
@options.feature_codec
@options.weights
@click.option("--torch-device", default="auto", help="Times the server's half: cpu, cuda or auto.")
@click.option(
    "--server-threads", type=click.IntRange(1, 1024), default=1, help="Threads of the server's half on a CPU."
)
@options.seed
@click.option("--out", metavar="FILE", help="Write the result as JSON.")
@click.option("--png", metavar="FILE", help="Draw the steps as bars.")
@options.as_json
def plan(**given: Any) -> None:
    """Rank the cuts of MODEL by predicted images/s trained, for a board and a link.

    Per cut: the step of one device in five parts (device, uplink, downlink, latency, server), which of them binds,
    images/s trained and images/s encoded only, bytes per image each way. The device's part is a roofline of the
    board's peak figures, so it is a lower bound, or measured on this host with --measure. The server's part is always
    measured on this host. Bytes are those of frames that were really coded.

    \b
    edgekit plan mobilenet_v1 --device jetson-nano --link 10mbit+20ms
    edgekit plan resnet18 --device jetson --link 2mbit/10mbit+30ms --devices 8 --out plan.json --png plan.png
    edgekit plan vgg11 --device cpu --measure --link 1gbit --dataset digits --cuts features.3,features.7
    """
    from edgekit.cli import settings
    from edgekit.codecs.registry import feature_codec
    from edgekit.data import registry
    from edgekit.export.plan.chart import draw
    from edgekit.export.plan.named import plan_named
    from edgekit.export.plan.settings import Compared, PlannedStep, Timing

    out, png = given["out"], given["png"]
    for path in (out, png):
        options.check_writable(path)
    codec = feature_codec(given["codec"], options.codec_config(given["codec"], given["bits"], given["groups"]))
    dataset = registry.load(given["dataset"], given["data"]) if given["dataset"] else None
    layers = [part.strip() for part in given["cuts"].split(",")] if given["cuts"] else ()
    with screen.counting("") as on_cut:
        result = plan_named(
            settings.network(given),
            PlannedStep(given["device"], given["link"], codec, given["devices"], given["batch"]),
            Compared(layers, given["everything"]),
            Timing(given["measure"], given["torch_device"], given["server_threads"]),
            dataset=dataset,
            seed=given["seed"],
            on_cut=on_cut,
        )
    if out:
        options.write_json(out, result.to_json())
    if png:
        draw(png, result.predictions, result.title)
    if given["as_json"]:
        options.print_json(result.to_json())
        return
    console = screen.wide(110)
    console.print(result.title, soft_wrap=True)
    console.print(_speeds(result), _sizes(result))
    best = result.predictions[0]
    notes = [
        f"best: cut behind {best.cut.layer}, {best.images_per_s:.4g} images/s, {best.binds} binds; coded bytes are of "
        "whole frames, formula bytes the papers'; a roofline is of peaks: read the order, not the rates (docs/plan.md)",
        f"images: {result.images}",
        f"device: {result.device_time}",
        f"server: {result.server_time}",
        *(f"left out {layer}: {reason}" for layer, reason in result.refused.items()),
    ]
    console.print("\n".join(notes), soft_wrap=True)


def _speeds(plan: "Plan") -> Table:
    steps = ("ms of a step:\ndevice", "\nuplink", "\ndownlink", "\nlatency", "\nserver")
    table = _table("images/s\ntrained", "images/s\nencoded", *steps, last="\nbinds")
    for each in plan.predictions:
        speeds = (f"{n:.4g}" for n in (each.images_per_s, each.encoded_images_per_s))
        parts = (f"{1e3 * seconds:.1f}" for seconds in each.step)
        table.add_row(each.cut.layer, "x".join(map(str, each.cut.shape)), *speeds, *parts, each.binds)
    return table


def _sizes(plan: "Plan") -> Table:
    table = _table("B/image up:\ncoded", "\nformula", "B/image down:\ncoded", "\nMiB to learn", last="")
    for each in plan.predictions:
        sizes = (each.bytes_up, each.formula_bytes_up, each.bytes_down)
        notes = ["default"] if each.cut.layer == plan.default else []
        notes += [] if each.fits else [f"more than the board's {plan.board.hardware.memory_gib:g} GiB"]
        table.add_row(
            each.cut.layer, "x".join(map(str, each.cut.shape)), *(f"{n:.0f}" for n in sizes),
            f"{each.memory_bytes / 2**20:.1f}", ", ".join(notes),
        )  # fmt: skip
    return table


def _table(*numbers: str, last: str) -> Table:
    first = Column("\ncut behind", overflow="fold"), Column("\nfeature", no_wrap=True)
    return Table(*first, *screen.numbers(*numbers), Column(last, no_wrap=True), box=None, pad_edge=False)
