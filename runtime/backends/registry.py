"""The table of backends. Reading it loads no engine, not even numpy: `doctor` does so before numpy is known to load."""

import importlib
from typing import TYPE_CHECKING, NamedTuple, Optional, Tuple, Type

from edgekit.errors import BackendError, UnknownName

if TYPE_CHECKING:
    from edgekit.runtime.backends.base import Backend


class Entry(NamedTuple):
    """A backend, as far as it is known without loading it."""

    #: The subclass of `Backend`, as "module:Class".
    path: str
    #: The `runtime` of the device profiles whose boards it serves; "" where no profile names it.
    runtime: str = ""
    #: Python modules that it needs besides numpy and grpc. Graphs that learn run in ONNX Runtime on every board.
    libraries: Tuple[str, ...] = ()
    #: The one of `libraries` that belongs to the board's system image and that no package index has; None for none.
    vendor: Optional[str] = None
    #: MiB of memory allowed for the accelerator's libraries and for making an engine; 0 without an accelerator.
    accelerator_mib: float = 0.0


#: Backend id -> entry. The MiB are estimates, not measured on a board.
BACKENDS = {
    "onnxruntime": Entry(
        "edgekit.runtime.backends.onnxruntime:OnnxRuntime", runtime="onnxruntime", libraries=("onnxruntime",)
    ),
    "reference": Entry("edgekit.runtime.backends.reference.backend:Reference"),
    "null": Entry("edgekit.runtime.backends.null:Null"),
    "tensorrt": Entry(
        "edgekit.runtime.backends.tensorrt.backend:TensorRt",
        runtime="tensorrt",
        libraries=("tensorrt", "onnxruntime"),
        vendor="tensorrt",
        accelerator_mib=1024.0,
    ),
    "ascend": Entry(
        "edgekit.runtime.backends.ascend.backend:Ascend",
        runtime="acl",
        libraries=("acl", "onnxruntime"),
        vendor="acl",
        accelerator_mib=512.0,
    ),
}
#: `runtime` of a device profile -> id of the backend that serves its board.
BY_RUNTIME = {entry.runtime: backend_id for backend_id, entry in BACKENDS.items() if entry.runtime}


def entry_of(backend_id: str) -> Entry:
    """The entry of backend `backend_id`; UnknownName when there is none."""
    if backend_id not in BACKENDS:
        raise UnknownName("backend", backend_id, BACKENDS, "there are: {}".format(", ".join(sorted(BACKENDS))))
    return BACKENDS[backend_id]


def backend_class(backend_id: str) -> "Type[Backend]":
    """The class of backend `backend_id`; BackendError when what it needs is not installed."""
    module, name = entry_of(backend_id).path.split(":")
    cls: Type[Backend] = getattr(importlib.import_module(module), name)
    reason = cls.missing()
    if reason:
        raise BackendError("backend '{}' cannot run here: {}".format(backend_id, reason))
    return cls


def learner_class(backend_id: str) -> "Type[Backend]":
    """The class that runs the graphs that learn where `backend_id` runs the deployed one; see `backend_class`."""
    return backend_class(backend_class(backend_id).learns_on or backend_id)
