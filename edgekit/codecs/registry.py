"""The codecs by id, imported on demand."""

import importlib
from typing import Any, Dict

from edgekit.codecs.base import FeatureCodec, GradientCodec
from edgekit.errors import UnknownName, UsageError

FEATURES = {
    "raw": "edgekit.codecs.features.raw:Raw",
    "uniform": "edgekit.codecs.features.uniform:Uniform",
    "sgq": "edgekit.codecs.features.sgq:SGQ",
    "product": "edgekit.codecs.features.product:Product",
    "slicing": "edgekit.codecs.features.slicing:Slicing",
    "topk": "edgekit.codecs.features.topk:TopK",
}
GRADIENTS = {
    "raw": "edgekit.codecs.gradients.raw:Raw",
    "stochastic": "edgekit.codecs.gradients.stochastic:Stochastic",
    "ternary": "edgekit.codecs.gradients.ternary:Ternary",
    "sparse": "edgekit.codecs.gradients.sparse:Sparse",
    "vq": "edgekit.codecs.gradients.vq:VQ",
    "residual": "edgekit.codecs.gradients.residual:Residual",
    "sampled": "edgekit.codecs.gradients.sampled:Sampled",
}


def feature_codec(codec_id: str, config: Dict[str, Any]) -> FeatureCodec:
    """The feature codec `codec_id` with constructor arguments `config`."""
    codec = _make("feature codec", FEATURES, codec_id, config)
    assert isinstance(codec, FeatureCodec)
    return codec


def gradient_codec(codec_id: str, config: Dict[str, Any]) -> GradientCodec:
    """The gradient codec `codec_id` with constructor arguments `config`."""
    codec = _make("gradient codec", GRADIENTS, codec_id, config)
    assert isinstance(codec, GradientCodec)
    return codec


def _make(what: str, table: Dict[str, str], codec_id: str, config: Dict[str, Any]) -> object:
    if codec_id not in table:
        raise UnknownName(what, codec_id, table, "there are: {}".format(", ".join(sorted(table))))
    module, name = table[codec_id].split(":")
    try:
        return getattr(importlib.import_module(module), name)(**config)
    except TypeError as error:
        raise UsageError("{} '{}' does not take {}: {}".format(what, codec_id, config, error)) from None
