"""ONNX operators that compute values in numpy: element by element, reductions over axes, and matrix products.

Inputs of an operator are positional arguments, None where one is omitted; attributes are keyword arguments of the same
names. Results have the dtype of the input; floats are summed in float64.
"""

import functools
from typing import Any, Callable, Optional, Sequence, Tuple, Union

import numpy as np

from edgekit.runtime.onnxfile import DTYPES

#: Integers such as axes: a list as an attribute (older operator sets), an array as an input (newer ones).
Ints = Union[Sequence[int], np.ndarray]


def unary(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """An operator of one input, computed element by element by `function`, which takes the attributes too."""

    def operator(x: np.ndarray, **attributes: Any) -> np.ndarray:
        return np.asarray(function(x, **attributes), dtype=x.dtype)

    return operator


def binary(function: Callable[..., Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """An operator of two inputs of one dtype, computed element by element by `function`, with broadcasting."""

    def operator(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(function(*_alike(a, b)))

    return operator


def variadic(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """An operator of one or more inputs of one dtype, combined two by two by `function`, with broadcasting."""

    def operator(x: np.ndarray, *more: np.ndarray) -> np.ndarray:
        return np.asarray(functools.reduce(function, _alike(x, *more)))

    return operator


def div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; the quotient of integers is rounded toward zero, as in C."""
    _alike(a, b)
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if np.any(b == 0):
        raise ValueError("integer division by zero")
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype))


def power(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    return np.asarray(np.power(x, exponent), dtype=x.dtype)


def prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """x, or slope * x where x < 0; `slope` is broadcast to the shape of `x`, never the other way."""
    _alike(x, slope)
    return np.asarray(np.where(x < 0, np.broadcast_to(slope, x.shape) * x, x), dtype=x.dtype)


def clip(x: np.ndarray, min: Optional[np.ndarray] = None, max: Optional[np.ndarray] = None) -> np.ndarray:
    if min is not None:
        x = np.asarray(np.maximum(x, np.asarray(min, dtype=x.dtype)))
    if max is not None:
        x = np.asarray(np.minimum(x, np.asarray(max, dtype=x.dtype)))
    return x


def where(condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(condition, *_alike(a, b)))


def cast(x: np.ndarray, *, to: int) -> np.ndarray:
    if to not in DTYPES:
        raise ValueError("cast to data type {}, which is not known here".format(to))
    return x.astype(DTYPES[to].newbyteorder("="))


def softmax(x: np.ndarray, *, axis: int = -1) -> np.ndarray:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True), dtype=x.dtype)


def log_softmax(x: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """Of operator set 13 and later."""
    less = x - np.max(x, axis=axis, keepdims=True)
    return np.asarray(less - np.log(np.sum(np.exp(less), axis=axis, keepdims=True)), dtype=x.dtype)


def softmax_11(x: np.ndarray, *, axis: int = 1) -> np.ndarray:
    """Softmax of operator sets before 13: over all axes from `axis` on, taken as one."""
    lead = int(np.prod(x.shape[:axis], dtype=np.int64))
    return softmax(x.reshape(lead, -1)).reshape(x.shape)


def reduction(function: Callable[..., Any], sums: bool = False) -> Callable[..., np.ndarray]:
    """An operator that reduces over `axes`: an attribute, or from operator set 13 or 18 on an input.

    `function` takes axis and keepdims as numpy's do; with `sums` also the dtype to sum in.
    """

    def operator(
        x: np.ndarray, axes: Optional[Ints] = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> np.ndarray:
        over = None if axes is None or not len(axes) else tuple(int(axis) for axis in axes)
        if over is None and noop_with_empty_axes:
            over = ()
        wide = {"dtype": np.float64 if x.dtype.kind == "f" else x.dtype} if sums else {}
        return np.asarray(function(x, axis=over, keepdims=bool(keepdims), **wide), dtype=x.dtype)

    return operator


def sum_of_squares(x: np.ndarray, axis: Optional[Tuple[int, ...]], keepdims: bool, dtype: Any) -> Any:
    return np.sum(np.square(x, dtype=dtype), axis=axis, keepdims=keepdims)


def arg(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """ArgMin or ArgMax, int64; `function` finds the first of equal values."""

    def operator(x: np.ndarray, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> np.ndarray:
        if select_last_index:
            index = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
        else:
            index = function(x, axis=axis)
        return np.asarray(np.expand_dims(index, axis) if keepdims else index, dtype=np.int64)

    return operator


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.matmul(*_alike(a, b)))


def gemm(
    a: np.ndarray,
    b: np.ndarray,
    c: Optional[np.ndarray] = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> np.ndarray:
    """alpha * A @ B + beta * C, for matrices A (m,k) and B (k,n), or their transposes; C broadcasts to (m,n)."""
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError("Gemm of {} and {}, expected two matrices".format(list(a.shape), list(b.shape)))
    y = matmul(a.T if transA else a, b.T if transB else b)
    if alpha != 1:
        y = y * a.dtype.type(alpha)
    if c is not None:
        y = y + a.dtype.type(beta) * np.broadcast_to(c, y.shape)
    return np.asarray(y, dtype=a.dtype)


def _alike(*arrays: np.ndarray) -> Sequence[np.ndarray]:
    """`arrays` themselves; ValueError unless they have one dtype. (numpy would promote, ONNX does not.)"""
    if len({array.dtype for array in arrays}) != 1:
        raise ValueError("inputs of types {}, expected one type".format([array.dtype.name for array in arrays]))
    return arrays
