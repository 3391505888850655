"""edgekit cuts"""

from typing import TYPE_CHECKING, Any

import click
from rich.table import Column, Table

from edgekit.cli import options, screen

if TYPE_CHECKING:
    from edgekit.export.plan.cuts import Cut


@click.command()
@options.model
@click.option("--input", "input_shape", default="3,32,32", metavar="C,H,W", help="Input shape.")
@click.option("--classes", type=int, help="Classes that it tells apart (default: 10, or your network's own).")
@options.feature_codec
@options.weights
@options.as_json
def cuts(model: str, **given: Any) -> None:
    """List every cut of MODEL: shape, parameters and FLOPs on both sides, bytes per image.

    MODEL is a built-in name (`edgekit models`) or your own network as package.module:factory. A cut is a layer whose
    output is the only tensor that goes on from there; a block and its last layer are one cut under two names. FLOPs are
    2 per multiply-add; coded bytes are the codec's formula, without headers. Good cuts end with an activation, a
    pooling or a block.
    `edgekit plan` compares them for a board and a link.

    \b
    edgekit cuts mobilenet_v1 --input 3,224,224
    edgekit cuts mynet.model:make --input 1,28,28 --codec uniform --bits 8 --json
    """
    from edgekit.codecs.registry import feature_codec
    from edgekit.export.models.registry import build, default_cut
    from edgekit.export.named import parse_shape
    from edgekit.export.plan.cuts import cut_table

    shape, classes, codec = parse_shape(given["input_shape"]), given["classes"], given["codec"]
    chosen = feature_codec(codec, options.codec_config(codec, given["bits"], given["groups"]))
    table = cut_table(build(model, shape, classes, 0, given["weights"]), shape, chosen)
    default = default_cut(model)
    if given["as_json"]:
        rows = [{**cut._asdict(), "default": cut.layer == default} for cut in table]
        settings = {"model": model, "input": shape, "classes": classes}
        options.print_json({**settings, "codec": {"id": codec, "config": chosen.config}, "cuts": rows})
        return
    screen.wide(120).print(_table(f"{model}, {'x'.join(map(str, shape))}, {chosen!r}", table, default))


def _table(title: str, cuts: "list[Cut]", default: str | None) -> Table:
    numbers = screen.numbers(
        "feature", "k parameters\nbefore", "\nafter", "MFLOP\nbefore", "\nafter", "raw\nB/image", "coded\nB/image"
    )
    columns = Column("layer", overflow="fold"), *numbers, Column("", overflow="fold")
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for cut in cuts:
        work = (f"{n / 1e3:.1f}" for n in (cut.parameters_before, cut.parameters_after))
        flops = (f"{n / 1e6:.1f}" for n in (cut.flops_before, cut.flops_after))
        sizes = ("-", "-") if cut.coded_bytes is None else (f"{cut.raw_bytes}", f"{cut.coded_bytes:.0f}")
        marks = ("default", cut.layer == default), ("after ReLU", cut.after_relu), ("good", cut.good)
        notes = cut.refusal or ", ".join(name for name, is_so in marks if is_so)
        table.add_row(cut.layer, "x".join(map(str, cut.shape)), *work, *flops, *sizes, notes)
    return table
