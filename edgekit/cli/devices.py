"""edgekit devices"""

from typing import TYPE_CHECKING

import click

from edgekit.cli import options
from edgekit.errors import UnknownName

if TYPE_CHECKING:
    from edgekit.device_profiles.profile import Profile

HEADER = ("device", "runtime", "precision", "opset", "norm", "memory GiB", "peak GFLOP/s", "GB/s")
#: Index of the first column of `HEADER` with numbers.
NUMBERS = 5


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@options.as_json
@click.option("--markdown", is_flag=True, help="The table of all devices, for a page of documentation.")
def devices(name: str | None, as_json: bool, markdown: bool) -> None:
    """List the boards, or show everything about one.

    NAME is a board of the list or the path of a TOML file that describes your own.
    """
    from edgekit.device_profiles.registry import ALIASES, profile, profiles

    if name is not None:
        found = profile(name)
        if as_json:
            options.print_json(found.to_json())
        else:
            _show(found)
        return
    every = [profile(board) for board in profiles()]
    if as_json:
        options.print_json({board.name: board.to_json() for board in every})
        return
    click.echo("\n".join(_table(every, markdown)))
    if not markdown:
        for alias, board in ALIASES.items():
            click.echo(f"{alias} is {board}")


def _table(every: "list[Profile]", markdown: bool) -> list[str]:
    rows = [HEADER, *map(_row, every)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pads = [str.rjust if column >= NUMBERS else str.ljust for column in range(len(HEADER))]
    cells = [[pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)] for row in rows]
    if not markdown:
        return ["  ".join(row).rstrip() for row in cells]
    rule = ["-" * (width - 1) + ":" if i >= NUMBERS else "-" * width for i, width in enumerate(widths)]
    return [f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]]]


def _row(board: "Profile") -> tuple[str, ...]:
    target, hardware = board.target, board.hardware
    return (
        board.name,
        f"{board.runtime} {board.runtime_version}",
        target.precision,
        str(target.opset),
        target.norm,
        f"{hardware.memory_gib:g}",
        f"{hardware.peak_gflops:.0f}",
        f"{hardware.bandwidth_gb_s:.0f}",
    )


def _show(board: "Profile") -> None:
    from edgekit.export.targets.check import BOARD_RULES

    for rule in board.target.rules:
        if rule not in BOARD_RULES:
            raise UnknownName(
                "board rule", rule, BOARD_RULES, f"{board.name} names it; there are: {', '.join(BOARD_RULES)}"
            )
    target, hardware = board.target, board.hardware
    click.echo(f"{board.name}: {board.title}")
    _lines("runtime", f"{board.runtime}, Python {board.python} or newer")
    _lines("versions", ", ".join(f"{part} {version}" for part, version in board.versions.items()))
    shapes = "every shape static, the batch included" if target.static else "any batch"
    _lines("graph", f"opset {target.opset}, IR version {target.ir_version}, {target.precision}, {shapes}")
    _lines("norm", f"{target.norm} by default")
    _lines("quantise", f"distances by {target.scores}, codebooks as {target.codebooks}")
    _lines("weights", f"by {target.weights}")
    _lines("learning", f"ONNX Runtime, provider {board.provider}")
    memory = f"{hardware.memory_gib:g} GiB at {hardware.bandwidth_gb_s:g} GB/s"
    peak = f"{hardware.peak_gflops:g} GFLOP/s in {target.precision} at best"
    cores = f"{hardware.cpu_cores} CPU cores, together {hardware.cpu_gflops:g} GFLOP/s in float32 at best"
    _lines("hardware", f"{memory}, {peak}", cores)
    _lines("rules", *(f"{rule}: {BOARD_RULES[rule].what}" for rule in target.rules))
    operators = f"{len(target.operators)}: {' '.join(target.operators)}"
    _lines("operators", operators if target.operators else "whatever the operator set has")
    _lines("sources", *board.sources)


def _lines(label: str, *texts: str) -> None:
    """Prints `label`, and beside it `texts` in a column, wrapped to 120 characters."""
    for text in texts:
        click.echo(click.wrap_text(text, width=120, initial_indent=f"  {label:10} ", subsequent_indent=" " * 15))
        label = ""
