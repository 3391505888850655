"""Roofline: the least time that a board's figures allow for counted work.

Every node takes ``max(FLOPs / peak, bytes / memory bandwidth)``, one after another (Williams, Waterman and Patterson
2009, doi:10.1145/1498765.1498785). No program reaches the peaks: the times are lower bounds, good for comparing cuts.
"""

from collections.abc import Iterable

from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.features.sgq import SGQ
from edgekit.device_profiles.profile import Profile
from edgekit.export.plan.work import Work, count_parameters


def encode_seconds(front: Iterable[Work], board: Profile) -> float:
    """Seconds of the deployed front half with its quantise stage, on the board's engine at its precision.

    Batch norms are folded, and operators on the values of one tensor take no time: engines compute them within the
    node before.
    """
    share = 0.5 if board.target.precision == "float16" else 1.0
    peak, bandwidth = board.hardware.peak_gflops * 1e9, board.hardware.bandwidth_gb_s * 1e9
    return sum(
        max(work.flops / peak, share * (work.bytes_read + work.bytes_written) / bandwidth)
        for work in front
        if not work.joins
    )


def training_seconds(front: Iterable[Work], board: Profile) -> float:
    """Seconds of a training step: forward pass, quantise stage and gradients, in float32 on all cores of the CPU.

    The gradients repeat a node's forward work once for its weights and once for every input that has a gradient:
    twice for a convolution, once for the first one. Where the profile's norm policy is "frozen", batch norms are
    folded.
    """
    peak, bandwidth = board.hardware.cpu_gflops * 1e9, board.hardware.bandwidth_gb_s * 1e9
    folded = board.target.norm == "frozen"
    return sum(
        (1 + work.gradients) * max(work.flops / peak, (work.bytes_read + work.bytes_written) / bandwidth)
        for work in front
        if not (folded and "batch_norm" in work.operator)
    )


def encoder_work(codec: FeatureCodec, shape: tuple[int, ...], batch: int) -> Work:
    """The work of the quantise stage for `batch` features of `shape` (C,h,w).

    sgq: the distances to all codewords, one grouped 1x1 convolution, and the smallest of each group; uniform: five
    operators on every value; others: nothing. `topk` is picked on the CPU, when it is packed.
    """
    channels, height, width = shape
    positions = batch * height * width
    values = positions * channels
    flops, read, written = 0, 0, 0
    if isinstance(codec, SGQ):
        scores = positions * codec.groups * codec.words
        flops = 2 * values * codec.words + scores
        read, written = values + scores, scores + positions * codec.groups
    elif codec.codec_id == "uniform":
        flops, read, written = 5 * values, values, values
    return Work((), shape, codec.codec_id, False, False, flops, 4 * read, 4 * written, {}, 0)


def training_bytes(front: list[Work]) -> int:
    """Bytes of memory that learning takes at least: weights, gradients, momentum, and every node's output."""
    return 4 * 3 * count_parameters(front) + sum(work.bytes_written for work in front)
