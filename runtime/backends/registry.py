"""The backends by id, imported on demand; one that cannot be used here says why."""

import importlib
from typing import Type

from edgekit.errors import BackendError, UnknownName
from edgekit.runtime.backends.base import Backend

BACKENDS = {
    "onnxruntime": "edgekit.runtime.backends.onnxruntime:OnnxRuntime",
    "reference": "edgekit.runtime.backends.reference.backend:Reference",
    "tensorrt": "edgekit.runtime.backends.tensorrt.backend:TensorRt",
    "null": "edgekit.runtime.backends.null:Null",
    "ascend": "edgekit.runtime.backends.ascend.backend:Ascend",
}


def backend_class(backend_id: str) -> Type[Backend]:
    """The class of backend `backend_id`; BackendError when what it needs is not installed."""
    if backend_id not in BACKENDS:
        raise UnknownName("backend", backend_id, BACKENDS, "there are: {}".format(", ".join(sorted(BACKENDS))))
    module, name = BACKENDS[backend_id].split(":")
    cls = getattr(importlib.import_module(module), name)
    reason = cls.missing()
    if reason:
        raise BackendError("backend '{}' cannot run here: {}".format(backend_id, reason))
    assert issubclass(cls, Backend)
    found: Type[Backend] = cls
    return found
