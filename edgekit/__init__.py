"""edgekit: split learning of vision networks over thin links. docs/python.md shows these names in use."""

import importlib
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from edgekit.bundle import open_bundle
    from edgekit.export.bundle import export_bundle
    from edgekit.launch.train import train
    from edgekit.runtime.loop import Device
    from edgekit.server.service import Service

__version__ = "0.1.0"

#: Name -> where it is: imported when it is first asked for, so that a device needs no PyTorch. Python 3.7 and newer.
_PLACES = {
    "Device": "edgekit.runtime.loop",
    "Service": "edgekit.server.service",
    "export_bundle": "edgekit.export.bundle",
    "open_bundle": "edgekit.bundle",
    "train": "edgekit.launch.train",
}

__all__ = ["Device", "Service", "__version__", "export_bundle", "open_bundle", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError("module 'edgekit' has no attribute '{}'".format(name))
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
