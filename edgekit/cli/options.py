"""Options that several commands share."""

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Applies click options so that ``--help`` lists them in the order written."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def _numbers(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """The numbers of "0.485,0.456,0.406"."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        raise click.BadParameter(
            f"'{text}': expected numbers with commas between, for example 0.485,0.456,0.406"
        ) from None


model = click.argument("model", metavar="MODEL")
network = options(
    click.option(
        "--input",
        "input_shape",
        metavar="C,H,W",
        help="Input shape (default: the dataset's channels, at 28, 32 or 224 pixels).",
    ),
    click.option("--weights", metavar="FILE", help="Trained weights, .safetensors (default: fresh ones, by --seed)."),
    click.option(
        "--mean", callback=_numbers, metavar="M,M,M", help="What the model subtracts, 0..1 (default: data's)."
    ),
    click.option("--std", callback=_numbers, metavar="S,S,S", help="What it divides by, 0..1 (default: the data's)."),
)
board = options(
    click.option(
        "--device", default="cpu", show_default=True, help="Board to export for; `edgekit devices` lists them."
    ),
    click.option(
        "--norm",
        help="Batch norm while learning: batch or frozen (default: the board's; batch where none has ever run).",
    ),
    click.option(
        "--static-batch",
        type=click.IntRange(1, 4096),
        default=32,
        show_default=True,
        help="Batch of the deployed graph on boards of static shapes.",
    ),
)
cut = click.option("--cut", metavar="LAYER", help="Layer after which the model is cut (default: the model's own).")
bundle = click.argument("bundle", metavar="BUNDLE")
seed = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Decides weights, calibration images and shares.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Result as one JSON object on standard output.")

dataset = options(
    click.option(
        "--dataset",
        default="digits",
        show_default=True,
        help="digits (built in), mnist, fashion-mnist, cifar10, cifar100, or folder.",
    ),
    click.option(
        "--data",
        metavar="DIR",
        help="Where the dataset's files are; for folder: train/CLASS/*.png and test/CLASS/*.png.",
    ),
    click.option("--limit", type=int, metavar="N", help="Use N of its training images, balanced over the classes."),
)
codec = options(
    click.option("--codec", default="sgq", show_default=True, help="Feature codec: sgq, uniform or raw."),
    click.option("--bits", default=4, show_default=True, help="Bits per code (sgq, uniform)."),
    click.option("--groups", default=8, show_default=True, help="Groups of channels (sgq)."),
    click.option(
        "--calibration", default=256, show_default=True, help="Training images the first codebooks come from."
    ),
)
training = options(
    click.option("--optimizer", default="sgd", show_default=True, help="sgd or adam, on both sides."),
    click.option("--lr", default=0.05, show_default=True, help="Learning rate, on both sides."),
    click.option("--momentum", default=0.9, show_default=True),
    click.option("--weight-decay", default=5e-4, show_default=True),
    click.option("--schedule", default="cosine", show_default=True, help="cosine (with warm-up) or constant."),
    click.option(
        "--calibrate",
        help="Gradient sent back: none, masked, stochastic, stochastic-masked, ternary or ternary-masked "
        "(default: none for --codec raw, else stochastic-masked, or stochastic for a cut that is not after a ReLU).",
    ),
    click.option("--torch-device", default="auto", show_default=True, help="cpu, cuda or auto."),
    click.option("--server-threads", default=1, show_default=True, help="Threads of the back half on a CPU."),
)


def codec_config(codec: str, bits: int, groups: int) -> dict[str, int]:
    """The constructor arguments of feature codec `codec`."""
    table = {"sgq": {"groups": groups, "bits": bits}, "uniform": {"bits": bits}}
    return table.get(codec, {})


def print_json(value: Any) -> None:
    """One JSON object on one line of standard output; what is not finite, as a loss can be, becomes null."""
    click.echo(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
