"""Subjects: the methods to be measured, each with its bundle."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgekit.bundle import Bundle, open_bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.errors import UsageError
from edgekit.export.named import export_named
from edgekit.measure.methods import Method, check_distinct
from edgekit.server.calibrate import default_policy

#: Number of training images from which the first codebooks are made.
CALIBRATION = 256


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


def subjects(
    what: Sequence[str],
    methods: Sequence[Method],
    scratch: str,
    dataset: str,
    data: str | None,
    limit: int | None,
    seed: int,
    on_export: Callable[[str], None],
    **export: Any,
) -> list[Subject]:
    """The subjects of the folders `what`; or, when `what` is one model, of its bundles, one for each of `methods`.

    These bundles are written to `scratch`; `export` is passed to `export_named`.
    """
    if all(map(os.path.isdir, what)):
        carried = [_carried(open_bundle(path)) for path in what]
        check_distinct([subject.method for subject in carried])
        kinds = {(s.bundle.model, s.bundle.cut, s.bundle.feature_shape, s.bundle.device["name"]) for s in carried}
        if len(kinds) > 1:
            told = "; ".join(f"{model} cut at {cut} for {board}" for model, cut, _, board in sorted(kinds))
            raise UsageError(f"these bundles cannot be compared, expected one model, cut and board: {told}")
        return carried
    if len(what) > 1:
        raise UsageError(f"{' '.join(what)}: expected one model, or bundles, which are folders")
    images = registry.load(dataset, data, limit, seed)
    found = []
    for method in methods:
        on_export(f"exporting {what[0]} for {method.name}: {method.text}")
        codec = feature_codec(method.codec, method.config)
        bundle = export_named(
            what[0], os.path.join(scratch, method.name), dataset=images, codec=codec, calibration=CALIBRATION,
            seed=seed, overwrite=True, **export,
        )  # fmt: skip
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
