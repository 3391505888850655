"""Methods: names, methods spelt out, and what is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cli.rate import codec
from edgekit.cli.train import train
from edgekit.codecs.registry import feature_codec
from edgekit.errors import EdgekitError, UnknownName, UsageError
from edgekit.measure.methods import NAMES, parse
from edgekit.server.calibrate import DEFAULT


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_method(name: str) -> None:
    method = parse(name)
    assert method.name == name and method.text == NAMES[name] and method.gradient


def test_sgq_is_what_train_does_when_nothing_is_said() -> None:
    context = train.make_context("train", ["vgg11_thin"])
    method = parse("sgq")
    assert repr(codec(context.params)) == repr(feature_codec(method.codec, method.config))
    assert context.params["gradient_codec"] is None and method.gradient == DEFAULT


def test_spelt_out() -> None:
    method = parse("sgq:groups=4,bits=6,coding=context+sparse-masked:step=10,coarse=3")
    assert (method.name, method.codec) == ("sgq", "sgq")
    assert method.config == {"groups": 4, "bits": 6, "coding": "context"}
    assert method.gradient == "sparse-masked:step=10,coarse=3"
    assert parse("raw:").gradient == parse("uniform").gradient == "none"


def test_a_name_of_ones_own() -> None:
    assert parse("thin=topk:bits=2+ternary").name == "thin"
    assert parse("again=uq")._replace(name="uq") == parse("uq")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sgk", "did you mean sgq"),
        ("sgk:bits=4", "did you mean sgq"),
        ("sgq:bits", "lacks its value"),
        ("uq,sgq:bits=4", "expected ; between methods"),
        ("sgq:bots=4", "bots"),
        ("raw+stochastik", "did you mean stochastic"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises((UnknownName, UsageError), match=says):
        parse(text)


@given(st.text(alphabet="sgqraw:=+,.1x-", max_size=30))
def test_any_text_gives_a_method_or_a_typed_error(text: str) -> None:
    with contextlib.suppress(EdgekitError):
        assert parse(text).codec
