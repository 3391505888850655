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
        (("vgg11", "--mode", "async"), "--mode is of --devices"),
        (("vgg11", "--device-share", "0.5"), "--device-share is of --devices"),
        (("vgg11", "--devices", "1,2", "--seconds", "3"), "--seconds does not go with --devices"),
        (("vgg11", "--devices", "1,2", "--compare", "x"), "--compare does not go with --devices"),
        (("vgg11", "--devices", "1,x"), "--devices 1,x: expected numbers"),
        (("vgg11", "--devices", "2,1"), "from few to many"),
        (("vgg11", "--devices", "1", "--in-flight", "1,2"), "expected one number"),
        (("vgg11", "--devices", "1", "--mode", "sync,sync"), "each mode once"),
        (("vgg11", "--devices", "1", "--mode", "asink"), "did you mean async"),
        (("vgg11", "--devices", "1", "--sync-every", "often"), "often"),
        (("vgg11", "--devices", "1,900"), "1438 images for 900 devices: expected at least 1800"),
        (("vgg11", "--devices", "1", "--device-share", "3"), "expected 0.01 to 1"),
        (("vgg11", "--devices", "1", "--links", "10mbits"), "10mbits"),
        (("vgg11", "--devices", "1", "--codecs", "sgk"), "did you mean sgq"),
        (("BUNDLE", "--devices", "1"), "expected one model"),
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
    assert "--devices 1,2,4,8 --device-share 0.125" in text
