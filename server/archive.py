"""Archive: what a torch.export archive holds: a tensor program as JSON, what its weights are, and its constants.

torch has a reader of its own. It evaluates expressions, unpickles, and imports what an archive names; and it loads
torch's compiler, which takes longer than all else at a server's start. Here JSON and the bytes of tensors are read, and
nothing else.
"""

import io
import json
import re
import zipfile
from typing import Any, NamedTuple

import torch

from edgekit.errors import BundleError

MODEL = "models/model.json"
_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
#: What an archive may have. Samples, versions, and the placeholders of weights are not looked at.
_ENTRY = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_FILES = {_WEIGHTS: re.compile(r"weight_\d+"), _CONSTANTS: re.compile(r"tensor_\d+")}
#: The version of the form that is read.
SCHEMA = 8
#: torch.export's numbers of dtypes.
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
    7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip


class Declared(NamedTuple):
    """What the program expects of a weight or buffer."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    #: Whether it has a gradient.
    learns: bool


class Archive(NamedTuple):
    """`model` is as torch.export writes it; nothing of it has been looked at but its version."""

    model: dict[str, Any]
    weights: dict[str, Declared]
    constants: dict[str, torch.Tensor]


def read_archive(data: bytes, name: str) -> Archive:
    """The archive `data`; BundleError naming `name` where it has more than a tensor program.

    Of damaged ones other errors come: see `edgekit.server.program.load_program`.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        found: dict[str, zipfile.ZipInfo] = {}
        for info in file.infolist():
            # Without the folder that all are in.
            entry = info.filename.partition("/")[2]
            if not _ENTRY.fullmatch(entry) or entry in found or info.compress_type != zipfile.ZIP_STORED:
                raise BundleError(f"{name}: entry '{entry or info.filename}' is no part of a plain tensor program")
            found[entry] = info
        model = json.loads(file.read(found[MODEL]))
        version = model["schema_version"]["major"]
        if version != SCHEMA:
            raise BundleError(
                f"{name}: torch.export's form {version}, expected {SCHEMA}: export it with torch {torch.__version__}"
            )
        weights = {
            key: Declared(_sizes(meta["tensor_meta"]), _dtype(meta["tensor_meta"]), _learns(meta))
            for key, meta in _config(json.loads(file.read(found[_WEIGHTS])), _WEIGHTS, name)
        }
        constants = {
            key: _tensor(file.read(found["data/constants/" + meta["path_name"]]), meta["tensor_meta"])
            for key, meta in _config(json.loads(file.read(found[_CONSTANTS])), _CONSTANTS, name)
        }
    return Archive(model, weights, constants)


def _config(config: Any, entry: str, name: str) -> list[tuple[str, Any]]:
    """Key and metadata of each tensor in the configuration `entry`."""
    for key, meta in config["config"].items():
        if meta["use_pickle"] is not False or not _FILES[entry].fullmatch(meta["path_name"]):
            raise BundleError(f"{name}: '{key}' in {entry} would be unpickled, only plain tensors are loaded")
    return list(config["config"].items())


def _learns(meta: Any) -> bool:
    return bool(meta["is_param"] and meta["tensor_meta"]["requires_grad"])


def _sizes(meta: Any, key: str = "sizes") -> tuple[int, ...]:
    return tuple(int(size["as_int"]) for size in meta[key])


def _dtype(meta: Any) -> torch.dtype:
    return DTYPES[meta["dtype"]]


def _tensor(data: bytes, meta: Any) -> torch.Tensor:
    # torch makes no tensor of no bytes.
    flat = torch.frombuffer(bytearray(data), dtype=_dtype(meta)) if data else torch.empty(0, dtype=_dtype(meta))
    return flat.as_strided(_sizes(meta), _sizes(meta, "strides"), int(meta["storage_offset"]["as_int"]))
