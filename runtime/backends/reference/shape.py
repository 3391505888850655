"""ONNX operators that move, select or repeat values, in numpy.

Inputs and attributes are arguments as in `arithmetic`. Shapes, axes and bounds are lists where they are attributes
(older operator sets) and arrays where they are inputs.
"""

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from edgekit.runtime.backends.reference.arithmetic import Ints


def identity(x: np.ndarray) -> np.ndarray:
    return x


def constant(
    *,
    value: Optional[np.ndarray] = None,
    value_float: Optional[float] = None,
    value_floats: Optional[Sequence[float]] = None,
    value_int: Optional[int] = None,
    value_ints: Optional[Sequence[int]] = None,
) -> np.ndarray:
    if value is not None:
        return value
    if value_float is not None or value_floats is not None:
        return np.array(value_floats if value_float is None else value_float, dtype=np.float32)
    if value_int is not None or value_ints is not None:
        return np.array(value_ints if value_int is None else value_int, dtype=np.int64)
    raise ValueError("a Constant without a value")


def constant_of_shape(shape: np.ndarray, *, value: Optional[np.ndarray] = None) -> np.ndarray:
    fill = np.zeros(1, dtype=np.float32) if value is None else value
    return np.full(_ints(shape), fill.reshape(-1)[0], dtype=fill.dtype)


def shape_of(x: np.ndarray, *, start: int = 0, end: Optional[int] = None) -> np.ndarray:
    return np.array(x.shape[start:end], dtype=np.int64)


def reshape(x: np.ndarray, shape: np.ndarray, *, allowzero: int = 0) -> np.ndarray:
    """`x` in another shape: 0 keeps an axis's length (unless `allowzero`), one -1 takes what is left."""
    wanted = _ints(shape)
    if not allowzero:
        wanted = [x.shape[axis] if length == 0 else length for axis, length in enumerate(wanted)]
    return x.reshape(wanted)


def flatten(x: np.ndarray, *, axis: int = 1) -> np.ndarray:
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), int(np.prod(x.shape[axis:], dtype=np.int64)))


def transpose(x: np.ndarray, *, perm: Optional[Sequence[int]] = None) -> np.ndarray:
    return x.transpose(perm)


def squeeze(x: np.ndarray, axes: Optional[Ints] = None) -> np.ndarray:
    return np.asarray(np.squeeze(x, axis=None if axes is None else tuple(_ints(axes))))


def unsqueeze(x: np.ndarray, axes: Ints) -> np.ndarray:
    """`x` with new axes of length 1; `axes` are their places in the result."""
    return np.asarray(np.expand_dims(x, tuple(_ints(axes))))


def expand(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """`x` broadcast together with `shape`: where `shape` is 1, the length of `x` stays."""
    like = np.broadcast_to(x.dtype.type(0), _ints(shape))
    return np.broadcast_arrays(x, like)[0].copy()


def tile(x: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    if len(repeats) != x.ndim:
        raise ValueError("repeats {} of an array of rank {}".format(_ints(repeats), x.ndim))
    return np.asarray(np.tile(x, _ints(repeats)))


def concat(*arrays: np.ndarray, axis: int) -> np.ndarray:
    return np.concatenate(arrays, axis=axis)


def split(
    x: np.ndarray, split: Optional[Ints] = None, *, axis: int = 0, num_outputs: Optional[int] = None
) -> Sequence[np.ndarray]:
    """Pieces of the lengths in `split`, else `num_outputs` equal ones."""
    if split is None:
        if num_outputs is None:
            raise ValueError("neither lengths nor a number of outputs")
        return np.split(x, num_outputs, axis=axis)
    lengths = _ints(split)
    if sum(lengths) != x.shape[axis] or min(lengths) < 0:
        raise ValueError("lengths {} do not add up to {}".format(lengths, x.shape[axis]))
    return np.split(x, np.cumsum(lengths)[:-1].tolist(), axis=axis)


def gather(x: np.ndarray, indices: np.ndarray, *, axis: int = 0) -> np.ndarray:
    return np.asarray(np.take(x, indices, axis=axis))


def slice_of(
    x: np.ndarray, starts: Ints, ends: Ints, axes: Optional[Ints] = None, steps: Optional[Ints] = None
) -> np.ndarray:
    """A slice of `x`; as in Python, bounds are clamped and negative ones count from the end."""
    over = list(range(len(starts))) if axes is None else _ints(axes)
    by = [1] * len(starts) if steps is None else _ints(steps)
    if not len(starts) == len(ends) == len(over) == len(by):
        raise ValueError("{} starts, {} ends, {} axes, {} steps".format(len(starts), len(ends), len(over), len(by)))
    index: List[Any] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(_ints(starts), _ints(ends), over, by):
        index[axis] = slice(start, end, step)
    return np.ascontiguousarray(x[tuple(index)])


def pad(
    x: np.ndarray,
    pads: Ints,
    value: Optional[np.ndarray] = None,
    axes: Optional[Ints] = None,
    *,
    mode: str = "constant",
) -> np.ndarray:
    """`x` padded with `value`. `pads` has all begins, then all ends, of `axes` (default: all); negative ones crop."""
    if mode != "constant":
        raise ValueError("mode {}, only 'constant' is known here".format(mode))
    over = list(range(x.ndim)) if axes is None else _ints(axes)
    amounts = _ints(pads)
    if len(amounts) != 2 * len(over):
        raise ValueError("pads {}, expected {} numbers".format(amounts, 2 * len(over)))
    pairs: List[Tuple[int, int]] = [(0, 0)] * x.ndim
    kept: List[Any] = [slice(None)] * x.ndim
    for axis, begin, end in zip(over, amounts, amounts[len(over) :]):
        pairs[axis] = (max(begin, 0), max(end, 0))
        kept[axis] = slice(max(-begin, 0), max(x.shape[axis] + min(end, 0), 0))
    fill = 0 if value is None else np.asarray(value).reshape(-1)[0]
    return np.pad(x[tuple(kept)], pairs, "constant", constant_values=fill)


def dropout(
    x: np.ndarray, ratio: Optional[np.ndarray] = None, training_mode: Optional[np.ndarray] = None, *, seed: int = 0
) -> Tuple[np.ndarray, np.ndarray]:
    """`x`, and a mask that is True everywhere: inference drops nothing."""
    if training_mode is not None and np.any(training_mode):
        raise ValueError("dropout in training mode: export the graph for inference")
    return x, np.ones(x.shape, dtype=bool)


def _ints(values: Ints) -> List[int]:
    return [int(value) for value in values]


def size_of(x: np.ndarray) -> np.ndarray:
    """Number of elements, int64."""
    return np.array(x.size, dtype=np.int64)
