"""Which provider a device takes, by what was asked for, what the bundle was exported for, and what is installed."""

import pytest

from edgekit.errors import BackendError, UnknownName, UsageError
from edgekit.providers import PROVIDERS, check_provider, choose, short

PLAIN = ("CPUExecutionProvider",)
CUDA = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("asked", "exported_for", "offered", "name", "wanted"),
    [
        ("auto", "cpu", PLAIN, "cpu", "cpu"),
        ("auto", "cpu", CUDA, "cpu", "cpu"),
        ("auto", "cuda", CUDA, "cuda", "cuda"),
        ("auto", "cuda", PLAIN, "cpu", "cuda"),
        ("cpu", "cuda", CUDA, "cpu", "cpu"),
        ("cpu", "cpu", (), "cpu", "cpu"),
        ("cuda", "openvino", CUDA, "cuda", "cuda"),
    ],
)
def test_the_choice(asked: str, exported_for: str, offered: tuple[str, ...], name: str, wanted: str) -> None:
    found = choose(asked, exported_for, offered)
    assert (found.name, found.wanted) == (name, wanted)
    # Where it is another than the one that was wanted, the reason says what to install.
    assert (PROVIDERS[wanted].install in found.reason) == (name != wanted)


def test_what_is_asked_for_by_name_is_never_replaced() -> None:
    for name in set(PROVIDERS) - {"cpu"}:
        with pytest.raises(BackendError, match=f"'{name}' cannot run here: .* offers cpu, not {name}: pip install"):
            choose(name, name, PLAIN)
        with pytest.raises(UsageError, match=f"export it again with --provider {name}"):
            choose(name, "cpu", [provider.name for provider in PROVIDERS.values()])


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match=r"unknown provider 'openvin': did you mean openvino\? there are: auto, cpu"):
        choose("openvin", "cpu", PLAIN)
    with pytest.raises(UnknownName):
        check_provider("")
    check_provider("auto")


def test_names_of_what_is_offered() -> None:
    assert short(CUDA) == ("TensorrtExecutionProvider", "cuda", "cpu")
