"""The codecs by id, imported on demand."""

import importlib
import inspect
import json
from typing import Any, Dict

from edgekit.codecs.base import FeatureCodec, GradientCodec, UpdateCodec
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
    "dct": "edgekit.codecs.gradients.dct:DCT",
    "residual": "edgekit.codecs.gradients.residual:Residual",
    "sampled": "edgekit.codecs.gradients.sampled:Sampled",
}
UPDATES = {
    "fedavg": "edgekit.codecs.updates.fedavg:FedAvg",
    "quantised": "edgekit.codecs.updates.quantised:Quantised",
}


def feature_codec(codec_id: str, config: Dict[str, Any]) -> FeatureCodec:
    """The feature codec `codec_id` with constructor arguments `config`."""
    codec = _make("feature codec", FEATURES, codec_id, config)
    assert isinstance(codec, FeatureCodec)
    return codec


def parse_feature_codec(text: str) -> FeatureCodec:
    """The feature codec that `text` spells, "CODEC" or "CODEC:KEY=VALUE,..."; UsageError.

    >>> parse_feature_codec("sgq:groups=4,bits=6").config["bits"]
    6
    """
    codec_id, _, pairs = text.partition(":")
    return feature_codec(codec_id, parse_settings(pairs))


def gradient_codec(codec_id: str, config: Dict[str, Any]) -> GradientCodec:
    """The gradient codec `codec_id` with constructor arguments `config`."""
    codec = _make("gradient codec", GRADIENTS, codec_id, config)
    assert isinstance(codec, GradientCodec)
    return codec


def update_codec(codec_id: str, config: Dict[str, Any]) -> UpdateCodec:
    """The update codec `codec_id` with constructor arguments `config`."""
    codec = _make("update codec", UPDATES, codec_id, config)
    assert isinstance(codec, UpdateCodec)
    return codec


def parse_update_codec(text: str) -> UpdateCodec:
    """The update codec that `text` spells, "CODEC" or "CODEC:KEY=VALUE,..."; UsageError.

    >>> parse_update_codec("quantised:step=0.5").config["step"]
    0.5
    """
    codec_id, _, pairs = text.partition(":")
    return update_codec(codec_id, parse_settings(pairs))


def parse_settings(text: str) -> Dict[str, Any]:
    """The constructor arguments in "key=value,key=value": numbers, true and false, else text.

    >>> parse_settings("groups=4,weighted=true,coding=context")
    {'groups': 4, 'weighted': True, 'coding': 'context'}
    """
    found = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError("'{}' of '{}' lacks its value: expected KEY=VALUE,...".format(pair, text))
        try:
            found[key] = json.loads(value.lower())
        except ValueError:
            found[key] = value
    return found


def _make(what: str, table: Dict[str, str], codec_id: str, config: Dict[str, Any]) -> object:
    if codec_id not in table:
        raise UnknownName(what, codec_id, table, "there are: {}".format(", ".join(sorted(table))))
    module, name = table[codec_id].split(":")
    cls = getattr(importlib.import_module(module), name)
    if not isinstance(config, dict):
        raise UsageError("{} '{}' does not take {}: expected settings by name".format(what, codec_id, config))
    known = list(inspect.signature(cls).parameters)
    for key in config:
        if key not in known:
            there = "it takes {}".format(", ".join(known)) if known else "it takes none"
            raise UnknownName("setting of {} '{}'".format(what, codec_id), key, known, there)
    try:
        return cls(**config)
    except TypeError as error:
        raise UsageError("{} '{}' does not take {}: {}".format(what, codec_id, config, error)) from None
