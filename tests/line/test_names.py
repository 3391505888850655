"""What a device may be called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.line.names import LONGEST, check_name, name_error


@pytest.mark.parametrize("name", ["nano", "10.0.0.7", "fe80::1%eth0", "the left camera", "n" * LONGEST, "Gerät 2"])
def test_names(name: str) -> None:
    assert name_error(name) is None and check_name(name) == name


@pytest.mark.parametrize("name", ["", " ", " nano", "nano ", "n" * (LONGEST + 1), "a\tb", "a\n", "\x1b[2J", "\ud800"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected 1 to 64, all printable, .* --name") as caught:
        check_name(name)
    assert repr(name)[:20] in str(caught.value) and str(caught.value).encode()  # can be shown


@given(st.text(max_size=70))
def test_any_text_is_a_name_or_an_error_that_can_be_shown(name: str) -> None:
    error = name_error(name)
    if error is None:
        assert 1 <= len(name) <= 64 and name.isprintable() and not name.startswith(" ") and not name.endswith(" ")
    else:
        assert error.isprintable() and len(error) < 300
