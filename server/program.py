"""torch.export archive -> ExportedProgram, refusing an archive that could run anything but its tensor program.

What torch 2.13 does with the entries of a .pt2 archive (torch/export/pt2_archive/_package.py and
torch/_export/serde/serialize.py), and what is allowed here:

=====================================  =============================================  ===========================
entry                                  torch                                          here
=====================================  =============================================  ===========================
data/weights/weight_N                  raw bytes; ``torch.load(weights_only=False)``  ``use_pickle`` is refused
data/constants/tensor_N                where the config says ``use_pickle``
data/constants/custom_obj_N, opaque_   unpickled                                      refused
data/weights/model.pt, constants/...   older form: ``weights_only=True``, and if      refused
                                       that fails, False
data/sample_inputs/model.pt            the same, unless it is empty                   must load weights_only=True
data/aotinductor/...                   shared libraries, loaded                       refused
models/model.json: ``expr_str``        ``sympy.sympify``, which evaluates Python      constructors of symbols only
models/model.json: ``guards_code``     ``exec`` by ``module()``                       ``module(check_guards=False)``
models/model.json: ``target``          looked up from the root of torch, called       aten, plain arithmetic
models/model.json: names               written into generated Python                  must be identifiers
models/model.json: ``in_spec`` ...     can import modules by name (enums)             tuples, lists, dicts
=====================================  =============================================  ===========================

With a RuntimeError, `torch.export.load` also tries the format of torch 2.7; `load_pt2` does not, so it is used.
"""

import io
import json
import pickle
import re
from typing import Any

import torch
from torch._export.verifier import SpecViolationError
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader
from torch.export.pt2_archive._package import load_pt2

from edgekit.errors import BundleError

_MODEL = "models/model.json"
_SAMPLE = "data/sample_inputs/model.pt"
_CONFIGS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
_ENTRY = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ANY = re.compile(r".*", re.DOTALL)
#: By JSON key, what its strings may be; dotted words where nothing is said.
_GRAMMAR = {
    "name": _NAME,
    "as_name": _NAME,
    "forward_arg_names": _NAME,
    "target": re.compile(
        r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge)",
        re.ASCII,
    ),
    "expr_str": re.compile(
        r"(Symbol\('[su]\d+'|(Integer|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv)\("
        r"|(positive|nonnegative|integer)=True|[-\d(), ])*"
    ),
    "in_spec": re.compile(r'([\[\]{}:, 1]|"(type|context|children_spec|null|\[\]|builtins\.(tuple|list|dict))"|null)*'),
    "as_operator": re.compile(r"(?!)"),
    "as_string": _ANY,
    "as_strings": _ANY,
    "guards_code": _ANY,
}
_GRAMMAR["out_spec"] = _GRAMMAR["in_spec"]
_WORD = re.compile(r"[\w.+-]*", re.ASCII)
#: What torch's readers raise over bytes that are no archive, JSON of another shape, and pickles of more than tensors.
_UNREADABLE = (
    RuntimeError,
    AssertionError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    SpecViolationError,
    pickle.UnpicklingError,
)


def load_program(data: bytes, name: str) -> ExportedProgram:
    """The program in archive `data`; BundleError naming `name` when it is damaged or holds more than a tensor program.

    Turn it into a module with ``module(check_guards=False)`` only.
    """
    try:
        reader = PT2ArchiveReader(io.BytesIO(data))
        _check(reader, name)
        return load_pt2(io.BytesIO(data)).exported_programs["model"]
    except _UNREADABLE as error:
        raise BundleError(
            f"{name}: torch {torch.__version__} cannot load it ({str(error)[:200]!r}): export it with this version"
        ) from error


def _check(reader: PT2ArchiveReader, name: str) -> None:
    entries = reader.get_file_names()
    for entry in entries:
        if not _ENTRY.fullmatch(entry) or entries.count(entry) > 1:
            raise BundleError(f"{name}: entry '{entry}' is no part of a plain tensor program")
    for config, file_name in _CONFIGS.items():
        for key, meta in json.loads(reader.read_string(config))["config"].items():
            if meta["use_pickle"] is not False or not file_name.fullmatch(meta["path_name"]):
                raise BundleError(f"{name}: '{key}' in {config} would be unpickled, only plain tensors are loaded")
    sample = reader.read_bytes(_SAMPLE)
    if sample:
        try:
            torch.load(io.BytesIO(sample), weights_only=True)
        except _UNREADABLE as error:
            raise BundleError(
                f"{name}: {_SAMPLE} holds more than tensors; set `program.example_inputs = None` before saving"
            ) from error
    _check_strings(json.loads(reader.read_string(_MODEL)), "", name)


def _check_strings(value: Any, key: str, name: str) -> None:
    if isinstance(value, dict):
        for inner, item in value.items():
            # Metadata (stack traces, module paths) is kept as text by torch, never evaluated.
            if inner != "metadata":
                _check_strings(item, inner, name)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item, key, name)
    elif isinstance(value, str) and not _GRAMMAR.get(key, _WORD).fullmatch(value):
        raise BundleError(f"{name}: {_MODEL} has {key} {value[:200]!r}, which a plain tensor program does not need")
