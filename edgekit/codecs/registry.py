"""The codecs by id, imported on demand."""

import importlib
import inspect
import json
from typing import Any, Dict, Tuple

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
    "dgc": "edgekit.codecs.updates.dgc:DGC",
    "terngrad": "edgekit.codecs.updates.terngrad:TernGrad",
    "stc": "edgekit.codecs.updates.stc:STC",
    "dhqc": "edgekit.codecs.updates.dhqc:DHQC",
    "fsfl": "edgekit.codecs.updates.fsfl:FSFL",
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
    return feature_codec(*parse_settings(text))


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
    return update_codec(*parse_settings(text))


def parse_settings(text: str) -> Tuple[str, Dict[str, Any]]:
    """The name in "NAME" or "NAME:KEY=VALUE,...", and the settings behind it: numbers, true and false, else text.

    >>> parse_settings("sgq:groups=4,weighted=true,coding=context")
    ('sgq', {'groups': 4, 'weighted': True, 'coding': 'context'})
    """
    name, _, pairs = text.partition(":")
    found = {}
    for pair in filter(None, pairs.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError("'{}' of '{}' lacks its value: expected {}:KEY=VALUE,...".format(pair, text, name))
        try:
            found[key] = json.loads(value.lower())
        except ValueError:
            found[key] = value
    return name, found


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
