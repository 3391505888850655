import pytest

from edgekit.errors import UsageError
from edgekit.line.clear import check_clear, is_loopback


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:50051", "[::1]:0"])
def test_loopback_needs_nothing(address: str) -> None:
    assert is_loopback(address)
    check_clear("--server", address, identity=False, insecure=False)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "[::]:1", "10.0.0.2:1", "nano:1", "localhost.evil.net:1", "127.0.0.1.nip.io:1"]
)
def test_other_machines_need_an_identity_or_an_order(address: str) -> None:
    assert not is_loopback(address)
    with pytest.raises(
        UsageError, match=r"--listen .* leaves this machine.*edgekit enroll.*--identity DIR; or --insecure"
    ):
        check_clear("--listen", address, identity=False, insecure=False)
    check_clear("--listen", address, identity=True, insecure=False)
    check_clear("--listen", address, identity=False, insecure=True)


def test_both_are_a_contradiction() -> None:
    with pytest.raises(UsageError, match="--identity and --insecure: expected one of them"):
        check_clear("--listen", "127.0.0.1:1", identity=True, insecure=True)
