"""JointProgram: the training program on the images of one rank, as it would be on those of all ranks.

Two of a network's operators look beyond one image. In an exported program functions take their places:

- **Dropout**: every rank draws for all images, and takes what is drawn for its own.
- **Batch norm**: statistics are those of all images. torch's own SyncBatchNorm is a module, and for GPUs alone.

::

    forward    n, mean, variance of each rank --gather--> those of all N values of a channel (Chan et al. 1979)
               y = (x - mean) / sd * weight + bias
    backward   sum(dy), sum(dy * xhat) of each rank --add--> sums over all N
               dx = weight / sd * (dy - (sum + xhat * sum2) / N)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import batch_norm

from edgekit.errors import BundleError
from edgekit.server.program import ExportedProgram
from edgekit.server.ranks.group import Group

#: Operators that multiply each value by something drawn.
DROPOUTS = (torch.ops.aten.dropout.default, torch.ops.aten.feature_dropout.default)


class JointProgram:
    """A `Program` of which each rank runs the images that it has, none or more.

    It runs on no fewer than `program` takes: blank images are added, which count for nothing.
    """

    def __init__(self, program: ExportedProgram, group: Group) -> None:
        self.name = program.name
        self._least, most = program.batch
        self.batch = 1, most
        self._program = program
        self._group = group
        #: The images of the joint step, and which of them are here. The last of those that run may be blank.
        self._total = 0
        self._rows: list[int] = []
        program.replace(torch.ops.aten.batch_norm.default, self._batch_norm())
        for dropout in DROPOUTS:
            program.replace(dropout, self._dropout(dropout))

    def begin(self, sizes: Sequence[int], here: Sequence[bool]) -> None:
        """Says of how many images the parts of the next joint step are, and which parts are here."""
        self._total = sum(sizes)
        owners = [own for n, own in zip(sizes, here, strict=True) for _ in range(n)]
        self._rows = [row for row, own in enumerate(owners) if own]

    def __call__(self, feature: torch.Tensor) -> torch.Tensor:
        images = len(feature)
        if images < self._least:
            feature = torch.cat([feature, feature.new_zeros(self._least - images, *feature.shape[1:])])
        return self._program(feature)[:images]

    def _dropout(self, operator: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def joint_dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
            if not training:
                return operator(x, p, training)
            # Laid out as x is, by which the draws go.
            ones = x.new_ones(self._total, *x.shape[1:]).contiguous(memory_format=_layout(x))
            drawn = operator(ones, p, True)
            factors = x.new_zeros(x.shape)
            factors[: len(self._rows)] = drawn[self._rows]
            return x * factors

        return joint_dropout

    def _batch_norm(self) -> Callable[..., torch.Tensor]:
        def joint_batch_norm(
            x: torch.Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float,
            eps: float, fast: bool,
        ) -> torch.Tensor:  # fmt: skip
            if not training:
                return torch.batch_norm(x, weight, bias, mean, variance, training, momentum, eps, fast)
            if weight is None or bias is None or mean is None:
                raise BundleError(
                    f"{self.name}: a batch norm without weights or running statistics cannot be trained on several "
                    "ranks: give it affine=True and track_running_stats=True, or start one server"
                )
            y: torch.Tensor = _JointNorm.apply(  # type: ignore[no-untyped-call]
                x, weight, bias, mean, variance, momentum, eps, len(self._rows), self._group
            )
            return y

        return joint_batch_norm


class _JointNorm(torch.autograd.Function):
    """x (n,C,...) f32, of which the first `images` count; the running statistics move."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, running_mean: torch.Tensor,
        running_variance: torch.Tensor, momentum: float, eps: float, images: int, group: Group,
    ) -> torch.Tensor:  # fmt: skip
        channels = x.shape[1]
        own = x.new_zeros(3, channels, dtype=torch.float64)
        if images:
            own[0] = images * x[0, 0].numel()
            own[2], own[1] = torch.var_mean(x[:images], _all_but_channels(x), correction=0)
        n, means, variances = group.gather(own).unbind(1)
        total = n.sum(0)
        mean = (n * means).sum(0) / total
        variance = (n * (variances + (means - mean).square())).sum(0) / total
        unbiased = variance * (total / (total - 1))
        mean, variance, unbiased, total = (each.to(x.dtype) for each in (mean, variance, unbiased, total))
        running_mean.lerp_(mean, momentum)
        running_variance.lerp_(unbiased, momentum)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.images, ctx.group, ctx.total = eps, images, group, total
        return batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (dy,) = gradients
        x, weight, mean, variance = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        # As batch norm with fixed statistics has it: the sums over what is here. Blank images have a gradient of 0.
        dx, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([of_bias, of_weight])
        ctx.group.add([sums])
        shape = (1, -1, *[1] * (x.dim() - 2))
        scale = weight * inverse / ctx.total
        slope = -scale * inverse * sums[1]
        shift = -scale * sums[0] - slope * mean
        counted = slice(0, ctx.images)
        dx[counted] += torch.addcmul(shift.view(shape), x[counted], slope.view(shape))
        return dx, of_weight, of_bias, None, None, None, None, None, None


def _all_but_channels(x: torch.Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _layout(x: torch.Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
