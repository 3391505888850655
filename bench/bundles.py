"""The bundle that a bench of one network and one method trains."""

import os
from typing import Any

from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.export.named import export_named
from edgekit.export.settings import Calibration, Coding, NamedNetwork
from edgekit.measure.methods import Method


def exported(folder: str, method: Method, options: Any, cut: str | None = None) -> str:
    """Exports the network of `options` (model, cut, dataset, data, perhaps limit) for `method`; the bundle's path."""
    path = os.path.join(folder, "bundle")
    calibration = Calibration(registry.load(options.dataset, options.data, getattr(options, "limit", None), 0))
    network = NamedNetwork(options.model, options.cut if cut is None else cut)
    export_named(path, network, calibration, Coding(feature_codec(method.codec, method.config)))
    return path
