"""Lines in the clear: without TLS everyone on the way can read and change what crosses, and nobody is who they say."""

import ipaddress

from edgekit.errors import UsageError


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` is this machine's own loopback, which no other machine sees."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_clear(option: str, address: str, identity: bool, insecure: bool) -> None:
    """UsageError for a line to other machines that is in the clear without having been asked for.

    `option` is what gave the address; `identity` and `insecure` say whether those options are there.
    """
    if identity and insecure:
        raise UsageError("--identity and --insecure: expected one of them, the first is TLS and the second is none")
    if not identity and not insecure and not is_loopback(address):
        raise UsageError(
            "{} {} leaves this machine, and the line would be in the clear: enroll (`edgekit enroll --help`) and give "
            "--identity DIR; or --insecure, on a network where you trust everyone".format(option, address)
        )
