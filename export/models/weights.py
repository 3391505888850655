"""Trained weights from a safetensors file into a network, checked tensor by tensor."""

import difflib
import hashlib
import itertools
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from edgekit import tensorfile
from edgekit.bundle import HEAD
from edgekit.class_names import said_in
from edgekit.errors import DataError, ExportError, PayloadError, UsageError

#: What PyTorch's own formats are called; they are pickles.
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
#: Counts of batches, which nothing here reads, may be missing.
OPTIONAL = "num_batches_tracked"
FRONT, BACK = "front.safetensors", "back.safetensors"
#: Where the two halves of a network may be in a folder: that of `edgekit serve --out`, or its "best"; that of
#: `edgekit train --out`; and that of one whose devices' front halves were not averaged.
HALVES = (
    (FRONT, BACK),
    (os.path.join("server", FRONT), os.path.join("server", BACK)),
    (os.path.join("device-0", FRONT), os.path.join("server", BACK)),
)
SHOWN = 3


def load_weights(network: nn.Module, path: str, classes: Sequence[str] = ()) -> None:
    """Copies the tensors of the safetensors file `path` into `network`, in place; or of both halves in a folder.

    Names and shapes must be those of ``network.state_dict()``, except that all names may begin with "module.", as
    DataParallel writes them; float16 and float64 are converted. Where a file says which classes it tells apart, as
    those of edgekit do, they must be `classes`, if these are given. A local head beside a front half is passed over:
    `head_weights` reads it. UsageError for a file that cannot be read or is a
    pickle, DataError for a damaged one, ExportError for one that does not fit; `network` is then as it was.
    """
    arrays: dict[str, np.ndarray] = {}
    for file in _halves(path) if os.path.isdir(path) else [path]:
        tensors, own = _read(file)
        arrays.update(tensors)
        if classes and own and own != tuple(classes):
            both = enumerate(itertools.zip_longest(own, classes, fillvalue="nothing"))
            label, (theirs, ours) = next((at, names) for at, names in both if names[0] != names[1])
            raise ExportError(
                f"weights {file} are for other classes: label {label} means {theirs} there, and {ours} in the dataset. "
                "Expected the same names in the same order; without --weights training begins anew"
            )
    expected = network.state_dict()
    arrays = {name: array for name, array in arrays.items() if name in expected or not name.startswith(HEAD)}
    if arrays and all(name.startswith("module.") for name in arrays) and not arrays.keys() & expected.keys():
        arrays = {name[len("module.") :]: array for name, array in arrays.items()}
    _check(path, type(network).__name__, arrays, expected)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)


def head_weights(path: str) -> dict[str, np.ndarray]:
    """The weights of the local head among the tensors of the file or folder `path`; none where there is none."""
    file = _halves(path)[0] if os.path.isdir(path) else path
    return {name: array for name, array in _read(file)[0].items() if name.startswith(HEAD)}


def digest(path: str) -> str:
    """The sha256, in hex, of the weights that the file or folder `path` holds; UsageError when it cannot be read."""
    found = hashlib.sha256()
    for file in _halves(path) if os.path.isdir(path) else [path]:
        found.update(_bytes(file))
    return found.hexdigest()


def _halves(folder: str) -> list[str]:
    """The files of both halves in `folder`; of the last place to look at where there are none."""
    places = [[os.path.join(folder, half) for half in halves] for halves in HALVES]
    return next((files for files in places if all(map(os.path.exists, files))), places[-1])


def _read(path: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The tensors of the file `path`, and the names of the classes where it says them."""
    if path.endswith(PICKLES):
        target = path[: path.rindex(".")] + ".safetensors"
        raise UsageError(
            f"{path} is a pickle, which can run any code when it is read; expected .safetensors. Convert it once:\n"
            "  import torch, safetensors.torch\n"
            f"  safetensors.torch.save_file(torch.load({path!r}, weights_only=True), {target!r})"
        )
    try:
        data = _bytes(path)
        return tensorfile.loads(data), said_in(tensorfile.metadata(data))
    except PayloadError as error:
        raise DataError(
            f"weights {path}: {error}; expected a safetensors file of float16, float32 or float64 tensors, as "
            "safetensors.torch.save_file writes it"
        ) from None


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(
            f"weights {path} cannot be read: {error.strerror}; expected a .safetensors file, or the folder of "
            "`edgekit train --out`"
        ) from None


def _check(path: str, network: str, arrays: dict[str, np.ndarray], expected: dict[str, torch.Tensor]) -> None:
    missing = [name for name in expected if name not in arrays and not name.endswith(OPTIONAL)]
    unexpected = [name for name in arrays if name not in expected]
    both = [(name, arrays[name], expected[name]) for name in expected if name in arrays]
    shapes = [f"{n} {_sizes(a)}, expected {_sizes(t)}" for n, a, t in both if _sizes(a) != _sizes(t)]
    dtypes = [f"{n} {a.dtype}, expected {_dtype(t)}" for n, a, t in both if not _converts(a, t)]
    near = (difflib.get_close_matches(name, missing, n=1) for name in unexpected)
    offers = [
        f"{name} (did you mean {close[0]}?)" if close else name for name, close in zip(unexpected, near, strict=True)
    ]
    problems = {"missing": missing, "unexpected": offers, "of another shape": shapes, "of another type": dtypes}
    found = [f"{len(names)} {what}: {_first(names)}" for what, names in problems.items() if names]
    if found:
        raise ExportError(
            f"weights {path} do not fit {network}; of its {len(expected)} tensors {'; '.join(found)}. Expected exactly "
            "those of its state_dict(): rename or drop the others before saving"
        )


def _converts(array: np.ndarray, tensor: torch.Tensor) -> bool:
    return array.dtype.kind == "f" if tensor.is_floating_point() else array.dtype == _dtype(tensor)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _sizes(value: np.ndarray | torch.Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
