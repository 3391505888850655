"""Options that several commands share."""

import json
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgekit.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

#: How indices of sgq are coded unless --coding says.
CODING = "context"


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
weights = click.option(
    "--weights",
    metavar="FILE",
    help="Trained weights: .safetensors, or the folder of `edgekit train --out`, or server/best in it (default: fresh "
    "ones, by --seed).",
)
network = options(
    click.option(
        "--input",
        "input_shape",
        metavar="C,H,W",
        help="Input shape (default: the dataset's channels, at 28, 32 or 224 pixels).",
    ),
    weights,
    click.option(
        "--mean", callback=_numbers, metavar="M,M,M", help="What the model subtracts, 0..1 (default: data's)."
    ),
    click.option("--std", callback=_numbers, metavar="S,S,S", help="What it divides by, 0..1 (default: the data's)."),
)
provider = click.option(
    "--provider",
    default="auto",
    help="What ONNX Runtime runs the graphs that learn on: cpu, cuda, cann or openvino; auto: the board's "
    "(default: auto). Bundles for any but cpu run on all of them.",
)
board = options(
    click.option("--device", default="cpu", help="Board to export for; `edgekit devices` lists them."),
    click.option(
        "--norm",
        help="Batch norm while learning: batch or frozen (default: the board's; batch where none has ever run).",
    ),
    click.option(
        "--static-batch",
        type=click.IntRange(1, 4096),
        default=32,
        help="Batch of the deployed graph on boards of static shapes.",
    ),
    click.option(
        "--train-layers",
        type=click.IntRange(min=1),
        metavar="K",
        help="Let only the last K layers of the front half learn: a lighter step, and smaller rounds (default: all). "
        "The others stay as they are: give them weights with --weights.",
    ),
    provider,
    click.option(
        "--local-head/--no-local-head",
        default=True,
        help="A small head beside the front half, in files of their own, for --local-loss (default: do).",
    ),
)
cut = click.option("--cut", metavar="LAYER", help="Layer after which the model is cut (default: the model's own).")
bundle = click.argument("bundle", metavar="BUNDLE")
seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Decides weights, calibration images and shares."
)
metrics = click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="The server gives /metrics for Prometheus, /status and /health by HTTP; port 0 takes a free one (default: "
    "none).",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Result as one JSON object on standard output.")

dataset = options(
    click.option(
        "--dataset", default="digits", help="digits (built in), mnist, fashion-mnist, cifar10, cifar100, or folder."
    ),
    click.option(
        "--data",
        metavar="DIR",
        help="Where the dataset's files are; for folder: train/CLASS/*.png and test/CLASS/*.png.",
    ),
    click.option("--limit", type=int, metavar="N", help="Use N of its training images, balanced over the classes."),
)
augment = click.option(
    "--augment",
    metavar="HOW",
    help="Change each training image at random every time that it comes: flip (mirrored, or not), crop:N (moved by up "
    "to N pixels, edges reflected), or flip,crop:4. For a few ten thousand photographs or less; digits and letters "
    "take no flip. Not with --coding temporal (default: images as they are).",
)
feature_codec = options(
    click.option("--codec", default="sgq", help="Feature codec: sgq, product, uniform, slicing, topk or raw."),
    click.option("--bits", default=4, help="Bits per code; slicing and topk: as many bytes as uniform."),
    click.option("--groups", default=8, help="Groups of channels (sgq, product)."),
)
codec = options(
    feature_codec,
    click.option("--calibration", default=256, help="Training images the first codebooks come from."),
    click.option(
        "--grouping",
        default="spectral",
        help="Channels that share a codebook (sgq): spectral (those that move together), significance or contiguous.",
    ),
    click.option(
        "--coding",
        help="Indices on the line (sgq): packed, at their fixed width; context, entropy coded; or temporal, entropy "
        "coded given those that the same image had in the epoch before, which both ends keep "
        f"(default: {CODING}).",
    ),
    click.option("--weighted", is_flag=True, help="Code significant channels better than others (sgq)."),
    click.option(
        "--significance",
        help="How a channel's significance is measured: gradient (of the loss) or gate (squeeze-and-excite, learned) "
        "(default: gradient, where --grouping or --weighted need it).",
    ),
)
rate = options(
    click.option(
        "--target-bytes",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="Choose --groups, --bits and the gradient so that a training image takes N bytes, both ways, rounds "
        "included (sgq).",
    ),
    click.option(
        "--max-accuracy-drop",
        type=click.FloatRange(min=0),
        metavar="D",
        help="Choose the groups and bits of fewest bytes that lose at most D points when decoded; needs --weights.",
    ),
    click.option("--rate-plot", metavar="FILE", help="Draw what a rate was chosen from, as PNG."),
)
training = options(
    click.option("--optimizer", default="sgd", help="sgd or adam, on both sides."),
    click.option(
        "--lr",
        type=float,
        help="Learning rate, on both sides (default: 0.05 for sgd, 0.001 for adam; less for steps on fewer than 32 "
        "images, in proportion).",
    ),
    click.option("--momentum", default=0.9),
    click.option("--weight-decay", default=5e-4),
    click.option("--schedule", default="cosine", help="cosine (with warm-up) or constant."),
    click.option(
        "--gradient-codec",
        help="Gradient sent back: none, masked, vq, residual, sampled-masked, or one of stochastic, ternary, sparse, "
        "dct, which also come as NAME-masked; with settings as in dct:zone=2. dct:bound=B holds the error of the front "
        "half's gradient within B (default: the bundle's, where a rate was chosen; none for --codec raw; else "
        "dct:bound=0.5).",
    ),
    click.option(
        "--noise-filling",
        metavar="SHARE",
        help="Train on Gaussian noise in the place of what quantising lost: `lost`, as much as that was (sgq, "
        "product), or this share of the variance, up to 0.9 (any codec). The last tenth of the steps has none. Where "
        "it helped is in docs/compression.md.",
    ),
    click.option(
        "--local-loss",
        default=0.0,
        metavar="W",
        help="Devices learn from the loss of a small head of their own too, which takes no bytes of the line; its "
        "gradient is made W times as long as that of the server, 0.5 for example (default: 0, none).",
    ),
    click.option(
        "--gradient-every",
        default=1,
        metavar="K",
        help="Send the gradient for every K-th step of a device; in the others it learns from its local loss alone.",
    ),
    click.option("--torch-device", default="auto", help="cpu, cuda or auto."),
    click.option("--server-threads", default=1, help="Threads of the back half on a CPU."),
)
fleet = options(
    click.option(
        "--mode",
        default="sync",
        help="sync (default): each step of the server is on a batch of every device. async: in the order of arrival; "
        "batches that arrive together are one step.",
    ),
    click.option(
        "--sync-every",
        metavar="N|1epoch|30s",
        help="Average the devices' front halves after so many steps, epochs or seconds; 0: each learns alone "
        "(default: 1epoch; 0 with --devices 1).",
    ),
    click.option(
        "--update-codec",
        default="quantised",
        metavar="CODEC[:KEY=VALUE,...]",
        help="How rounds send weights: quantised[:step=S], fedavg, fsfl[:sparsity=P], dhqc[:keep=K], stc[:keep=K], "
        "dgc[:keep=K], terngrad; docs/compression.md has all settings.",
    ),
    click.option(
        "--update-codec-down",
        metavar="CODEC",
        help="How the new weights come back, for example fedavg: uncompressed, so that only the way up is (default: by "
        "--update-codec).",
    ),
    click.option(
        "--update-layers",
        metavar="last:K|NAMES",
        help="Layers of the front half that every round carries, the last K or those named, with commas between. The "
        "others go with the rounds before tests only: test less often, --evaluate-every 5 (default: all).",
    ),
    click.option(
        "--average",
        default="clipped",
        help="mean of the devices' updates; clipped: of updates no longer than twice the median; trimmed: without the "
        "largest and smallest values.",
    ),
    click.option(
        "--norm-statistics",
        default="average",
        help="What rounds do with batch norm's running statistics in the front halves: average, or local.",
    ),
    click.option("--server-momentum", default=0.0, help="Momentum of the server's step along the average."),
    click.option(
        "--sampling",
        default="all",
        metavar="HOW",
        help="Devices that take part until the next round: all, static:SHARE, dynamic or dynamic:DECAY, fewer with "
        "every round by exp(-DECAY), but 5 at least (default: all).",
    ),
    click.option(
        "--start-wait", default=240.0, metavar="SECONDS", help="Start without devices that are not there by then."
    ),
    click.option(
        "--step-wait",
        type=float,
        metavar="SECONDS",
        help="Make a step without the devices that are later than this (default: 60; 0.02 with --mode async).",
    ),
    click.option(
        "--round-wait",
        default=60.0,
        metavar="SECONDS",
        help="The same for a round; where it is more than 60, also how long a device may say nothing in a test.",
    ),
    click.option(
        "--quorum",
        type=float,
        metavar="SHARE",
        help="Share of the devices that a step or round waits for however long it takes (default: 0.5).",
    ),
    click.option(
        "--quarantine/--no-quarantine",
        default=True,
        help="Leave odd batches out (all images alike, noise, one batch again and again), and learn no more from a "
        "device that goes on with them, or whose loss stays at guessing while the others learn (default: do).",
    ),
    click.option(
        "--joint-batch",
        type=click.IntRange(min=2),
        metavar="N",
        help="Images of a step of all devices together with --mode sync, each in proportion to its share (default: "
        "twice --batch, or 4 of each device where that is more).",
    ),
    click.option(
        "--ahead", type=int, metavar="N", help="Most steps that a device may be ahead of the slowest (default: any)."
    ),
    click.option(
        "--reconnect",
        default=60.0,
        metavar="SECONDS",
        help="How long a device whose line broke has to come back, and keeps trying; 0: its session ends at once.",
    ),
)


def was_given(name: str) -> bool:
    """Whether the option is on the command line, even if with the value that is its default."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def counts(option: str, text: str) -> tuple[int, ...]:
    """The numbers of "1,2,4", which --`option` was given."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise UsageError(f"--{option} {text}: expected numbers of at least 1 with commas between, for example 1,2,4")
    return tuple(int(part) for part in parts)


def codec_config(
    codec: str, bits: int, groups: int, grouping: str = "spectral", weighted: bool = False, coding: str | None = None
) -> dict[str, Any]:
    """The constructor arguments of feature codec `codec`; UsageError for settings that are not its own.

    None for `coding` is the codec's own, a fixed width, by which bytes can be told before anything is coded.
    """
    if codec != "sgq" and (grouping, weighted, coding) != ("spectral", False, None):
        told = "--grouping, --weighted and --coding are of --codec sgq: leave them out with"
        raise UsageError(f"{told} {codec}")
    grouped, plain = {"groups": groups, "bits": bits}, {"bits": bits}
    sgq = {**grouped, "grouping": grouping, "weighted": weighted, **({"coding": coding} if coding else {})}
    table: dict[str, dict[str, Any]] = {
        "sgq": sgq, "product": grouped, "uniform": plain, "slicing": plain, "topk": plain,
    }  # fmt: skip
    return table.get(codec, {})


checkpoint = click.option(
    "--checkpoint",
    default="60s",
    metavar="60s|500steps|0",
    help="Save the run in --out after so many seconds or steps, on the devices too, so that it goes on from there when "
    "the server or a device was lost (default: 60s; 0: never).",
)
overwrite = click.option("--overwrite", is_flag=True, help="Lose the halves of an earlier run that --out holds.")


def check_overwrite(given: dict[str, Any]) -> None:
    """UsageError for --overwrite without --out."""
    if given["overwrite"] and given["out"] is None:
        raise UsageError("--overwrite is of --out, which is not given")


def check_writable(path: str | None) -> None:
    """Raises UsageError where `path` cannot become a file, before anything long is done."""
    folder = os.path.dirname(path or "") or "."
    target = path if path and os.path.exists(path) else folder
    if path and (os.path.isdir(path) or not os.path.isdir(folder) or not os.access(target, os.W_OK)):
        raise UsageError(f"{path} cannot be written: expected a file in a folder that exists and can be written to")


def write(path: str, data: bytes) -> None:
    """Writes `data` to the file `path`; UsageError where that fails."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; the result was lost") from None


def write_json(path: str, value: Any) -> None:
    """Writes `value` as JSON to the file `path`; UsageError where that fails."""
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def print_json(value: Any) -> None:
    """One JSON object on one line of standard output; what is not finite, as a loss can be, becomes null."""
    click.echo(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


reached_by_ssh = options(
    click.option("--ssh", default="ssh", help="ssh with options, as in 'ssh -p 2222 -i KEY'."),
    click.option("--target", default="edgekit", help="Folder on the board, from its home."),
    click.option("--python", default="python3", help="Python on the board."),
    click.option("--wheels", metavar="DIR", help="Wheels of this machine for a board without internet."),
    click.option(
        "--env",
        "environment",
        multiple=True,
        metavar="NAME=VALUE",
        help="For every Python that is run there; repeatable.",
    ),
)
