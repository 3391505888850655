"""ONNX operators on feature maps (n,C,...), in numpy: convolution, pooling, batch normalisation.

Inputs and attributes are arguments as in `arithmetic`. Attributes of windows have one entry per spatial axis; `pads`
has all begins, then all ends. `geometry` is what all windows share: strides, dilations, pads and auto_pad.
"""

import itertools
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

Pairs = List[Tuple[int, int]]
#: Selects every image and every channel.
_ALL: Tuple[Any, ...] = (slice(None), slice(None))


def conv(
    x: np.ndarray,
    w: np.ndarray,
    b: Optional[np.ndarray] = None,
    *,
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    **geometry: Any,
) -> np.ndarray:
    """Convolution: (n,M,...) from x (n,C,...), w (M,C/group,k...), b (M,)."""
    _check(x, w, b, kernel_shape)
    if w.shape[0] % group or w.shape[1] * group != x.shape[1] or (b is not None and b.shape != w.shape[:1]):
        raise ValueError("weight {} does not fit {} in {} groups".format(list(w.shape), list(x.shape), group))
    rank = x.ndim - 2
    steps, spread, pairs = _geometry(rank, **geometry)
    windows = _windows(_pad(x, pairs, 0), w.shape[2:], steps, spread)
    n, out = windows.shape[0], windows.shape[2 : 2 + rank]
    kernels = w.reshape(group, w.shape[0] // group, -1)
    y = np.empty((n, group, kernels.shape[1], int(np.prod(out))), dtype=x.dtype)
    taps_first = (0, *range(1 + rank, 1 + 2 * rank), *range(1, 1 + rank))
    for image, result in zip(windows, y):  # one by one: the columns of a whole batch may not fit into memory
        columns = image.transpose(taps_first).reshape(group, kernels.shape[2], -1)
        np.matmul(kernels, columns, out=result)
    return _biased(y.reshape((n, w.shape[0], *out)), b)


def conv_transpose(
    x: np.ndarray,
    w: np.ndarray,
    b: Optional[np.ndarray] = None,
    *,
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    output_padding: Sequence[int] = (),
    **geometry: Any,
) -> np.ndarray:
    """Transposed convolution: (n,M,...) from x (n,C,...), w (C,M/group,k...), b (M,)."""
    _check(x, w, b, kernel_shape)
    channels = w.shape[1] * group
    if w.shape[0] != x.shape[1] or w.shape[0] % group or (b is not None and b.shape != (channels,)):
        raise ValueError("weight {} does not fit {} in {} groups".format(list(w.shape), list(x.shape), group))
    n, rank, kernel = x.shape[0], x.ndim - 2, w.shape[2:]
    steps, spread, pairs = _geometry(rank, **geometry)
    reach = [s * (i - 1) + 1 for s, i in zip(steps, x.shape[2:])]
    more = list(output_padding) or [0] * rank
    full = tuple(r + d * (k - 1) + o for r, d, k, o in zip(reach, spread, kernel, more))
    kernels = w.reshape(group, w.shape[0] // group, -1).transpose(0, 2, 1)
    columns = np.matmul(kernels, x.reshape(n, group, x.shape[1] // group, -1))
    columns = columns.reshape((n, channels, *kernel, *x.shape[2:]))
    y = np.zeros((n, channels, *full), dtype=x.dtype)
    for tap in itertools.product(*map(range, kernel)):
        at = tuple(slice(t * d, t * d + r, s) for t, d, r, s in zip(tap, spread, reach, steps))
        y[_ALL + at] += columns[_ALL + tap]
    inside = tuple(slice(begin, size - end) for (begin, end), size in zip(pairs, full))
    return _biased(np.ascontiguousarray(y[_ALL + inside]), b)


def max_pool(
    x: np.ndarray, *, kernel_shape: Sequence[int], ceil_mode: int = 0, storage_order: int = 0, **geometry: Any
) -> Tuple[np.ndarray, np.ndarray]:
    """The largest value of each window, and its place: int64, an index into `x` as one row."""
    if storage_order:
        raise ValueError("storage_order {} is not known here: export row-major".format(storage_order))
    rank = x.ndim - 2
    steps, spread, explicit = _geometry(rank, **geometry)
    extra = _ceiling(x.shape[2:], kernel_shape, steps, spread, explicit) if ceil_mode else [(0, 0)] * rank
    pairs = [(begin, end + more) for (begin, end), (_, more) in zip(explicit, extra)]
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    values = _windows(_pad(x, pairs, low), kernel_shape, steps, spread)
    place = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    places = _windows(_pad(place, pairs, -1), kernel_shape, steps, spread)
    out = _ALL + (slice(None),) * rank
    first = out + (0,) * rank
    best, index = values[first].copy(), places[first].copy()
    for tap in itertools.product(*map(range, kernel_shape)):
        value, where = values[out + tap], places[out + tap]
        larger = (value > best) | ((index < 0) & (where >= 0))
        np.copyto(best, value, where=larger)
        np.copyto(index, where, where=larger)
    return best, index


def max_unpool(
    x: np.ndarray,
    indices: np.ndarray,
    output_shape: Optional[np.ndarray] = None,
    *,
    kernel_shape: Sequence[int],
    **geometry: Any,
) -> np.ndarray:
    """Zeros of `output_shape` (default: the smallest that pools to `x`), with the values of `x` at `indices`."""
    if output_shape is None:
        steps, _, pairs = _geometry(x.ndim - 2, **geometry)
        sides = [
            (n - 1) * step + kernel - begin - end
            for n, step, kernel, (begin, end) in zip(x.shape[2:], steps, kernel_shape, pairs)
        ]
        output_shape = np.array(x.shape[:2] + tuple(sides))
    spread = np.zeros(int(np.prod(output_shape)), dtype=x.dtype)
    spread[indices.reshape(-1)] = x.reshape(-1)
    return spread.reshape(output_shape)


def average_pool(
    x: np.ndarray, *, kernel_shape: Sequence[int], ceil_mode: int = 0, count_include_pad: int = 0, **geometry: Any
) -> np.ndarray:
    """The mean of each window; padding counts as zeros with `count_include_pad`, else not at all."""
    rank = x.ndim - 2
    steps, spread, pairs = _geometry(rank, **geometry)
    extra = _ceiling(x.shape[2:], kernel_shape, steps, spread, pairs) if ceil_mode else [(0, 0)] * rank
    counted = _pad(np.ones((1, 1, *x.shape[2:]), dtype=x.dtype), pairs, 1 if count_include_pad else 0)
    taps = tuple(range(-rank, 0))
    total = _windows(_pad(_pad(x, pairs, 0), extra, 0), kernel_shape, steps, spread).sum(axis=taps)
    return np.asarray(total / _windows(_pad(counted, extra, 0), kernel_shape, steps, spread).sum(axis=taps))


def global_average_pool(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True, dtype=np.float64), dtype=x.dtype)


def batch_normalization(
    x: np.ndarray,
    scale: np.ndarray,
    b: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tuple[np.ndarray, ...]:
    """The normalised x; with `training_mode` by the batch's statistics, and then also running mean and variance."""
    channels = x.shape[1:2]
    scale, b, mean, var = (np.broadcast_to(array, channels) for array in (scale, b, mean, var))
    running: List[np.ndarray] = []
    if training_mode:
        axes = (0, *range(2, x.ndim))
        now = [np.mean(x, axis=axes, dtype=np.float64), np.var(x, axis=axes, dtype=np.float64)]
        for old, new in zip((mean, var), now):
            running.append(np.asarray(momentum * old + (1 - momentum) * new, dtype=old.dtype))
        mean, var = map(np.asarray, now)
    factor = scale / np.sqrt(var.astype(np.float64) + epsilon)
    shape = channels + (1,) * (x.ndim - 2)
    y = x * factor.astype(x.dtype).reshape(shape) + (b - mean * factor).astype(x.dtype).reshape(shape)
    return (y, *running)


def _windows(x: np.ndarray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> np.ndarray:
    """All windows of x (n,C,in...), as a view (n,C,out...,k...)."""
    out = tuple((i - d * (k - 1) - 1) // s + 1 for i, k, s, d in zip(x.shape[2:], kernel, strides, dilations))
    if len(kernel) != x.ndim - 2 or min(kernel) < 1 or min(strides) < 1 or min(dilations) < 1 or min(out) < 1:
        raise ValueError("windows {} do not fit into {}".format(list(kernel), list(x.shape)))
    along = tuple(s * stride for s, stride in zip(strides, x.strides[2:]))
    within = tuple(d * stride for d, stride in zip(dilations, x.strides[2:]))
    return as_strided(x, x.shape[:2] + out + tuple(kernel), x.strides[:2] + along + within, writeable=False)


def _ceiling(
    spatial: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pairs: Pairs
) -> Pairs:
    """Padding at the ends that completes a last window (ceil_mode); none if that window would start past the input."""
    extra = []
    for size, k, s, d, (begin, end) in zip(spatial, kernel, strides, dilations, pairs):
        over = size + begin + end - d * (k - 1) - 1
        last = -(-over // s)
        if last * s >= size + begin:
            last -= 1
        extra.append((0, max(last * s - over, 0)))
    return extra


def _pad(x: np.ndarray, pairs: Pairs, value: float) -> np.ndarray:
    if not any(map(any, pairs)):
        return x
    return np.pad(x, [(0, 0), (0, 0), *pairs], "constant", constant_values=value)


def _geometry(
    rank: int,
    *,
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
) -> Tuple[Sequence[int], Sequence[int], Pairs]:
    """Strides, dilations and padding of each of `rank` spatial axes, from an operator's attributes."""
    if auto_pad != "NOTSET":
        raise ValueError("auto_pad {} is not known here: export explicit pads".format(auto_pad))
    steps, spread, ends = strides or [1] * rank, dilations or [1] * rank, pads or [0] * (2 * rank)
    if len(steps) != rank or len(spread) != rank or min(*steps, *spread) < 1:
        raise ValueError(
            "strides {} or dilations {}, expected {} positive numbers".format(list(steps), list(spread), rank)
        )
    if len(ends) != 2 * rank or min(ends) < 0:
        raise ValueError("pads {}, expected {} non-negative numbers".format(list(ends), 2 * rank))
    return steps, spread, list(zip(ends[:rank], ends[rank:]))


def _biased(y: np.ndarray, b: Optional[np.ndarray]) -> np.ndarray:
    return y if b is None else np.asarray(y + b.reshape((-1,) + (1,) * (y.ndim - 2)))


def _check(x: np.ndarray, w: np.ndarray, b: Optional[np.ndarray], kernel_shape: Sequence[int]) -> None:
    kinds = {array.dtype.name for array in (x, w, b) if array is not None}
    if len(kinds) != 1 or w.ndim != x.ndim or x.ndim < 3 or tuple(kernel_shape or w.shape[2:]) != w.shape[2:]:
        raise ValueError(
            "input {} and weight {} of {}, kernel {}: expected equal ranks above 2, one type, the weight's own "
            "kernel".format(list(x.shape), list(w.shape), sorted(kinds), list(kernel_shape))
        )
