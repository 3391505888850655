"""What brings earlier versions of weights to the last one."""

import pytest

from edgekit.federate.history import History


def test_who_lacks_some_versions_gets_them_in_order() -> None:
    history = History()
    for version, payload in enumerate((b"a", b"bb", b"c")):
        history.add(version, payload, 100)
    assert [history.since(version, 3) for version in range(4)] == [[b"a", b"bb", b"c"], [b"bb", b"c"], [b"c"], []]


@pytest.mark.parametrize("version", [-1, 4, 9])
def test_versions_that_never_were_are_not_known(version: int) -> None:
    history = History()
    for each in range(3):
        history.add(each, b"a", 100)
    assert history.since(version, 3) is None


def test_what_is_longer_than_the_weights_is_let_go_of() -> None:
    history = History()
    for version in range(4):
        history.add(version, b"1234", 8)
    assert history.since(1, 4) is None and history.since(2, 4) == [b"1234", b"1234"]
