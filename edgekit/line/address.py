"""HOST:PORT, as `--server`, `--listen` and `edgekit link` take it."""

import re
from typing import Tuple

from edgekit.errors import UsageError

_ADDRESS = re.compile(r"([^\s/:\[\]]+|\[[^\s/\[\]]+\]):([0-9]{1,5})", re.ASCII)
_SCHEME = re.compile(r"[a-z0-9+.-]+://", re.ASCII | re.IGNORECASE)


def check_address(address: str) -> Tuple[str, int]:
    """The host, an IPv6 address without its brackets, and the port of `address`; UsageError unless it is HOST:PORT.

    gRPC itself takes a port modulo 65536, and 443 where there is none.

    >>> check_address("[::1]:50051")
    ('::1', 50051)
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found.group(2)) > 0xFFFF:
        raise UsageError("expected HOST:PORT with a port up to 65535, got '{}'{}".format(address, _hint(address)))
    return found.group(1).strip("[]"), int(found.group(2))


def _hint(address: str) -> str:
    """What to change, where that can be said."""
    scheme = _SCHEME.match(address)
    if scheme:
        return ": leave {} out, and what follows the port".format(scheme.group())
    host, _, port = address.rpartition(":")
    if ":" in host and not host.startswith("["):
        return ": an IPv6 address stands in brackets, [{}]:{}".format(host, port)
    if not host and address and not port.isdecimal():
        return ": add the port that `edgekit serve` listens at, such as {}:50051".format(address)
    return ""
