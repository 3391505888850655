"""TensorSpec: the name, dtype and shape that an array must have where it enters or leaves a part, and the check."""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from edgekit.errors import ShapeError

#: The dtypes that a spec may have, by numpy's names.
DTYPES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip


class TensorSpec(NamedTuple):
    """Name, numpy dtype name, and shape; a dimension of -1 takes any length (the batch)."""

    name: str
    dtype: str
    shape: Tuple[int, ...]

    def check(self, array: Any, where: str) -> None:
        """Raises ShapeError unless `array` has this dtype and shape; `where` starts the message.

        `array` may be anything that has a dtype and a shape, as numpy's arrays have them.
        """
        if array.dtype != np.dtype(self.dtype) or not self.fits(array.shape):
            raise ShapeError(
                "{}: '{}' is {} {}, expected {} {}".format(
                    where, self.name, array.dtype, list(array.shape), self.dtype, list(self.shape)
                )
            )

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(w in (-1, g) for w, g in zip(self.shape, shape))

    def to_json(self) -> Dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


def spec_from_json(value: Dict[str, Any]) -> TensorSpec:
    """Inverse of `TensorSpec.to_json`; KeyError, TypeError or ValueError on a value that it never gives."""
    name, dtype, shape = value["name"], value["dtype"], value["shape"]
    if not isinstance(name, str) or dtype not in DTYPES or not isinstance(shape, list):
        raise ValueError("{!r} is no tensor".format(value))
    if any(type(d) is not int or not -1 <= d < 1 << 31 for d in shape):
        raise ValueError("{!r} is no shape".format(shape))
    return TensorSpec(name, dtype, tuple(shape))


def check_all(specs: Sequence[TensorSpec], arrays: Mapping[str, Any], where: str) -> None:
    """Raises ShapeError unless `arrays` holds exactly the tensors of `specs`, each of its dtype and shape."""
    names: List[str] = [spec.name for spec in specs]
    if set(names) != set(arrays):
        raise ShapeError("{}: got tensors {}, expected {}".format(where, sorted(arrays), sorted(names)))
    for spec in specs:
        spec.check(arrays[spec.name], where)
