"""Methods to compare: a codec each way, written "codec:key=value,...+gradient", and short names for the usual ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from edgekit.codecs.registry import FEATURES, feature_codec, parse_settings
from edgekit.errors import UnknownName, UsageError
from edgekit.server.calibrate import DEFAULT, calibrator

#: Short name -> feature codec + gradient codec. Baselines without a gradient codec of their own have that of uniform
#: quantisation; `sgq` is what `edgekit train` does when nothing is said.
NAMES = {
    "fp32": "raw+none",
    "uq": "uniform:bits=4+stochastic:bits=4",
    "pq": "product:groups=8,bits=4+stochastic:bits=4",
    "clio": "slicing:bits=4+stochastic:bits=4",
    "topk": "topk:bits=4+stochastic:bits=4",
    "sgq": f"sgq:groups=8,bits=4,coding=context+{DEFAULT}",
}


class Method(NamedTuple):
    """A feature codec with its configuration, and the policy for the gradient that comes back."""

    name: str
    text: str
    codec: str
    config: dict[str, Any]
    gradient: str


def parse(text: str, names: dict[str, str] = NAMES) -> Method:
    """The method that `text` names or spells out; UnknownName or UsageError, with what there is, when it is none.

    >>> parse("sgq:groups=4,bits=6+sparse-masked:step=4").config
    {'groups': 4, 'bits': 6}
    """
    name, spelt, _ = text.partition("=")
    if spelt and name.isidentifier():
        # "mine=sgq:groups=4": a name of the user's own.
        return parse(text[len(name) + 1 :], names)._replace(name=name)
    full = names.get(text, text)
    if full == text and text in FEATURES:
        return parse(f"{text}+none", names)
    if full == text and not set(":+") & set(text):
        spelt_out = f"or CODEC:KEY=VALUE,...+GRADIENT, for example {NAMES['sgq']}"
        raise UnknownName("method", text, names, f"there are {', '.join(names)}; {spelt_out}")
    if "," in full.partition(":")[0]:
        raise UsageError(f"methods '{text}': expected ; between methods where one of them is spelt out, not commas")
    codec, _, gradient = full.partition("+")
    codec_id, config = parse_settings(codec)
    feature_codec(codec_id, config)
    gradient = gradient or "none"
    calibrator(gradient, 0)
    return Method(text if full != text else codec_id, full, codec_id, config, gradient)


def parse_list(text: str) -> list[Method]:
    """The methods in `text`, separated by commas, or by semicolons when one of them is spelt out."""
    between = ";" if set(";:") & set(text) else ","
    found = [parse(part.strip()) for part in text.split(between)]
    check_distinct(found)
    return found


def check_distinct(methods: Sequence[Method]) -> None:
    """Raises UsageError when two of `methods` have the same name."""
    names = [method.name for method in methods]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"'{twice[0]}' comes twice in {', '.join(names)}; NAME=CODEC:... gives a name of one's own")
