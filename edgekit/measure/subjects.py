"""Subjects: the methods to be measured, each with its bundle."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgekit.bundle import Bundle, open_bundle
from edgekit.codecs.registry import feature_codec
from edgekit.errors import UsageError
from edgekit.export.named import export_named
from edgekit.export.settings import BoardSettings, Calibration, Coding, NamedNetwork
from edgekit.measure.methods import Method, check_distinct
from edgekit.server.calibrate import default_policy


class Subject(NamedTuple):
    """A method and the bundle that carries it."""

    method: Method
    bundle: Bundle

    def described(self) -> dict[str, Any]:
        """The entry in a record; formula bytes are those of the codes alone."""
        return {
            "method": self.method.text,
            "codec": self.method.codec,
            "config": self.bundle.codec.config,
            "gradient": self.method.gradient,
            "formula_bytes_up_per_image": self.bundle.codec.formula_bits(self.bundle.feature_shape) / 8,
            "bundle": self.bundle.digest,
        }


def carried(paths: Sequence[str]) -> list[Subject]:
    """The bundles in the folders `paths`, each with its own method; UsageError where they cannot be compared."""
    found = [_carried(open_bundle(path)) for path in paths]
    check_distinct([subject.method for subject in found])
    kinds = {(s.bundle.model, s.bundle.cut, s.bundle.feature_shape, s.bundle.device["name"]) for s in found}
    if len(kinds) > 1:
        told = "; ".join(f"{model} cut at {cut} for {board}" for model, cut, _, board in sorted(kinds))
        raise UsageError(f"these bundles cannot be compared, expected one model, cut and board: {told}")
    return found


def exported(
    network: NamedNetwork,
    methods: Sequence[Method],
    folder: str,
    calibration: Calibration,
    board: BoardSettings,
    *,
    seed: int = 0,
    on_export: Callable[[str], None] = lambda text: None,
) -> list[Subject]:
    """A bundle of `network` for each of `methods`, written below `folder`; `on_export` is told which comes next."""
    found = []
    for method in methods:
        on_export(f"exporting {network.name} for {method.name}: {method.text}")
        coding = Coding(feature_codec(method.codec, method.config))
        path = os.path.join(folder, method.name)
        bundle = export_named(path, network, calibration, coding, board, seed=seed, overwrite=True)
        found.append(Subject(method, bundle))
    return found


def _carried(bundle: Bundle) -> Subject:
    """The subject of `bundle`: the codec that it was exported with, and the server's default for the gradient."""
    codec = bundle.codec
    gradient = default_policy(bundle)
    pairs = ",".join(f"{key}={value}" for key, value in codec.config.items())
    text = f"{codec.codec_id}{':' if pairs else ''}{pairs}+{gradient}"
    return Subject(
        Method(os.path.basename(os.path.realpath(bundle.path)), text, codec.codec_id, codec.config, gradient), bundle
    )
