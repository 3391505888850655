"""Named arrays as one row of values, and back; the arrays in order of name, each row-major."""

from typing import Dict, List, Tuple

import numpy as np

from edgekit.codecs.base import Arrays

Shapes = Dict[str, Tuple[int, ...]]


def shapes_of(arrays: Arrays) -> Shapes:
    return {name: array.shape for name, array in arrays.items()}


def flat(arrays: Arrays) -> np.ndarray:
    """(m,) f32: the values of `arrays`, which are f32, in a row; a copy."""
    return np.concatenate([np.zeros(0, dtype=np.float32), *(arrays[name].reshape(-1) for name in sorted(arrays))])


def sizes_of(shapes: Shapes) -> List[int]:
    """The number of values of each array, in order of name; 1 for an array without dimensions."""
    return [int(np.prod(shapes[name], dtype=np.int64)) for name in sorted(shapes)]


def rows_of(shapes: Shapes) -> List[int]:
    """The rows of each array, in order of name: a weight's filters or output neurons, 1 of less than two dimensions."""
    return [shapes[name][0] if len(shapes[name]) > 1 else 1 for name in sorted(shapes)]


def named(values: np.ndarray, shapes: Shapes) -> Arrays:
    """The arrays of `shapes` that `values` (m,) holds, one after another; parts of it, not copies."""
    ends = np.cumsum([0, *sizes_of(shapes)]).tolist()
    parts = zip(sorted(shapes), ends, ends[1:])
    return {name: values[start:end].reshape(shapes[name]) for name, start, end in parts}
