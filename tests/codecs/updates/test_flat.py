"""Arrays in a row, and back."""

import numpy as np

from edgekit.codecs.updates.flat import flat, named, rows_of, shapes_of, sizes_of
from tests.codecs.updates.drawn import drawn


def test_arrays_lie_in_a_row_in_order_of_name() -> None:
    update = drawn(0)
    values = flat(dict(reversed(update.items())))
    assert values.dtype == np.float32 and values[:432].tolist() == update["0.weight"].reshape(-1).tolist()
    for name, array in named(values, shapes_of(update)).items():
        np.testing.assert_array_equal(array, update[name])
    assert flat({}).shape == (0,)


def test_rows_are_those_of_weights() -> None:
    shapes: dict[str, tuple[int, ...]] = {"d": (), "c": (7,), "b": (4, 0), "a": (6, 3, 2, 2)}
    assert rows_of(shapes) == [6, 4, 1, 1]
    assert sizes_of(shapes) == [72, 0, 7, 1]
