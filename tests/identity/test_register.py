import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import IdentityError, UsageError
from edgekit.identity import layout
from edgekit.identity.register import Entry, Register, open_register

NOW = time.time()


def entry(name: str, key: str, ends: float = NOW + 1e6, revoked: float | None = None) -> Entry:
    return Entry(name, "1f", f"certificate of {key}", key, NOW, ends, revoked)


@pytest.fixture
def register(tmp_path: Path) -> Register:
    layout.write(str(tmp_path), layout.REGISTER, b"[]\n")
    return open_register(str(tmp_path))


def test_what_was_added_is_read_again(register: Register, tmp_path: Path) -> None:
    register.add(entry("a", "1"))
    register.add(entry("ä b", "2"))
    again = open_register(str(tmp_path))
    assert again.entries == [entry("a", "1"), entry("ä b", "2")]
    assert again.find("certificate of 2") == entry("ä b", "2") and again.find("other") is None


def test_revoking_takes_every_certificate_of_a_name(register: Register, tmp_path: Path) -> None:
    for name, key in (("a", "1"), ("b", "2"), ("a", "1")):
        register.add(entry(name, key))
    assert register.revoke("a") == 2
    assert [each.revoked is None for each in open_register(str(tmp_path)).entries] == [False, True, False]
    with pytest.raises(UsageError, match="no certificate of 'a' is left to revoke; enrolled: b"):
        register.revoke("a")


def test_a_name_has_one_key_at_a_time_and_a_revoked_key_none(register: Register) -> None:
    register.add(entry("a", "1"))
    register.add(entry("old", "2", ends=NOW - 1))
    register.check_new("a", "1")  # the same key again: a renewal
    register.check_new("b", "3")
    register.check_new("old", "4")
    with pytest.raises(IdentityError, match=r"a has a certificate for another key, until 20.*revoke` a first"):
        register.check_new("a", "5")
    register.revoke("a")
    register.check_new("a", "5")
    with pytest.raises(IdentityError, match="the key of this request was revoked as a: make a new one"):
        register.check_new("b", "1")


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b'[{"name": "a"}]', b"[" * 100_000, b"\xff"])
def test_a_damaged_register_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / layout.REGISTER).write_bytes(content)
    if content == b"{}":
        assert open_register(str(tmp_path)).entries == []
        return
    with pytest.raises(IdentityError, match=r"register\.json does not parse"):
        open_register(str(tmp_path))


@given(st.data())
def test_any_field_of_another_type_is_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fields"
    folder.mkdir(exist_ok=True)
    value = entry("a", "1")._asdict()
    value[data.draw(st.sampled_from(sorted(value)))] = data.draw(
        st.one_of(st.booleans(), st.lists(st.integers()), st.dictionaries(st.text(), st.text()))
    )
    (folder / layout.REGISTER).write_text(json.dumps([value]))
    with pytest.raises(IdentityError):
        open_register(str(folder))


def test_no_folder_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"edgekit enroll init .* makes the server's folder"):
        open_register(str(tmp_path / "none"))
