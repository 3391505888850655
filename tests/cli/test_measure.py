"""What `edgekit measure` refuses, before anything long."""

import pytest
from click.testing import CliRunner

from edgekit.bundle import Bundle
from edgekit.cli.measure import measure
from edgekit.errors import EdgekitError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vgg12",), "did you mean vgg16"),
        (("vgg11", "--codecs", "sgk"), "did you mean sgq"),
        (("vgg11", "--codecs", "uq,uq"), "'uq' comes twice"),
        (("vgg11", "--links", "10mbits"), "10mbits"),
        (("vgg11", "--in-flight", "0"), "at least 1"),
        (("vgg11", "--in-flight", "2,"), "at least 1"),
        (("BUNDLE", "vgg11"), "expected one model, or bundles"),
        (("BUNDLE", "BUNDLE"), "comes twice"),
        (("vgg11", "--compare", "BUNDLE"), "cannot be read"),
        (("BUNDLE", "--codecs", "uq"), "--codecs is of the export"),
        (("BUNDLE", "--in-flight", "16", "--batch", "1"), "at least 2 images"),
        (("vgg11", "--out", "no/such/folder.json"), "cannot be written"),
    ],
)
def test_refused(small_bundle: Bundle, arguments: tuple[str, ...], says: str) -> None:
    given = [small_bundle.path if argument == "BUNDLE" else argument for argument in arguments]
    result = CliRunner().invoke(measure, given)
    assert isinstance(result.exception, EdgekitError), result.output
    assert says in str(result.exception)


def test_help_teaches() -> None:
    text = CliRunner().invoke(measure, ["--help"]).output
    assert "edgekit measure mobilenet_v1" in text and "10mbit+50ms" in text
