import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.line.address import check_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("nano.local:0", "nano.local", 0),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("gerät_2:080", "gerät_2", 80),
    ],
)
def test_host_and_port(address: str, host: str, port: int) -> None:
    assert check_address(address) == (host, port)


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("http://10.0.0.2:50051", ": leave http:// out"),
        ("grpc://nano:50051/", ": leave grpc:// out, and what follows the port"),
        ("HTTPS://nano", ": leave HTTPS:// out"),
        ("nano", ": add the port that `edgekit serve` listens at, such as nano:50051"),
        ("::1:50051", r": an IPv6 address stands in brackets, \[::1\]:50051"),
        ("127.0.0.1:99999", ""),
        ("127.0.0.1:-1", ""),
        ("127.0.0.1:", ""),
        ("nano:٣", ""),
        ("nano:50051/line", ""),
        ("na no:50051", ""),
        ("me@nano:port", ""),
        (":80", ""),
        ("80", ""),
        ("", ""),
    ],
)
def test_what_is_no_address_says_what_to_change(address: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"expected HOST:PORT with a port up to 65535, got '.*'{hint}"):
        check_address(address)


@given(st.text(alphabet="a1:[]./ %-\x00é", max_size=20))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        host, port = check_address(text)
    except UsageError as error:
        assert f"'{text}'" in str(error)
    else:
        assert host in text and int(text.rpartition(":")[2]) == port
