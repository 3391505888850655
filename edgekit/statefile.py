"""The state of a program <-> bytes: a tree of plain values and arrays, without pickle.

A state is None, a bool, an int, a float, a str, a numpy array, or a list or dict (with names as keys) of states. It
becomes a safetensors file of its arrays. The tree around them is in the file's metadata as JSON, with a CRC-32 of all:

>>> loads(dumps({"step": 3, "weights": [np.zeros(2, np.float32)]}))
{'step': 3, 'weights': [array([0., 0.], dtype=float32)]}
"""

import json
import zlib
from typing import Any, Dict

import numpy as np

from edgekit import tensorfile
from edgekit.errors import PayloadError, ShapeError

State = Any
#: Key of a dict that stands in the tree for an array, with the array's number: no name is empty.
_ARRAY = ""
#: Deepest nesting that is read: the tree's reader calls itself.
DEEPEST = 50


def dumps(state: State) -> bytes:
    """The file's bytes; equal states give equal bytes. ShapeError where `state` holds something else."""
    arrays: Dict[str, np.ndarray] = {}
    tree = json.dumps(_without_arrays(state, arrays), separators=(",", ":"), sort_keys=True)
    return tensorfile.dumps(arrays, {"tree": tree, "check": str(checksum(tree, arrays))})


def loads(data: bytes) -> State:
    """The state in a file. PayloadError on any bytes that `dumps` did not give."""
    arrays, said = tensorfile.loads(data), tensorfile.metadata(data)
    if set(said) != {"tree", "check"}:
        raise PayloadError("a state's file says {}, expected tree and check".format(sorted(said)), 8)
    if said["check"] != str(checksum(said["tree"], arrays)):
        raise PayloadError("a state's file does not have the checksum that it says: it is damaged", 8)
    try:
        return _with_arrays(json.loads(said["tree"]), arrays, DEEPEST)
    except (ValueError, TypeError, RecursionError) as error:
        raise PayloadError("a state's tree does not parse: {!r:.200}".format(error), 8) from None


def _without_arrays(state: State, arrays: Dict[str, np.ndarray]) -> Any:
    """`state` as JSON has it; its arrays go into `arrays`."""
    if isinstance(state, np.ndarray):
        name = "{:06d}".format(len(arrays))
        arrays[name] = state
        return {_ARRAY: name}
    if isinstance(state, (list, tuple)):
        return [_without_arrays(each, arrays) for each in state]
    if isinstance(state, dict):
        if not all(isinstance(key, str) for key in state) or _ARRAY in state:
            raise ShapeError("a state with the keys {!r:.100}: expected names".format(state))
        # In order of name, so that equal states number their arrays alike.
        return {key: _without_arrays(state[key], arrays) for key in sorted(state)}
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    if isinstance(state, np.generic):
        return state.item()
    raise ShapeError("a state with {!r:.100}: expected plain values, arrays, lists and dicts".format(state))


def _with_arrays(tree: Any, arrays: Dict[str, np.ndarray], depth: int) -> State:
    if depth == 0:
        raise ValueError("nested more than {} deep".format(DEEPEST))
    if isinstance(tree, list):
        return [_with_arrays(each, arrays, depth - 1) for each in tree]
    if isinstance(tree, dict):
        if _ARRAY in tree:
            if tree[_ARRAY] not in arrays or len(tree) > 1:
                raise ValueError("there is no array {!r:.50}".format(tree))
            return arrays[tree[_ARRAY]]
        return {key: _with_arrays(each, arrays, depth - 1) for key, each in tree.items()}
    return tree


def checksum(tree: str, arrays: Dict[str, np.ndarray]) -> int:
    """The CRC-32 of a file with this `tree` and these `arrays`."""
    check = zlib.crc32(tree.encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        kind = "{}{}".format(arrays[name].dtype.newbyteorder("<").str, arrays[name].shape)
        check = zlib.crc32(arrays[name].tobytes(), zlib.crc32(kind.encode(), check))
    return check & 0xFFFFFFFF
