"""Names of devices: what one must be, on the command line, in a hello message and in a certificate."""

from typing import Optional

from edgekit.errors import UsageError

#: Characters of the longest name: as many as a Linux host name has at most, and bytes of one in a certificate (X.509).
LONGEST = 64


def name_error(name: str) -> Optional[str]:
    """Why `name` cannot be a device's name, for an error's message; None when it can."""
    if 1 <= len(name) <= LONGEST and name.isprintable() and name == name.strip():
        return None
    told = "device name {!r:.100} of {} characters: expected 1 to {}, all printable, no space at either end"
    return told.format(name, len(name), LONGEST)


def certificate_name_error(name: str) -> Optional[str]:
    """The same for a name that a certificate is to have."""
    error = name_error(name)
    if name in (".", ".."):
        error = "device name {!r}: a certificate's name is that of a folder too".format(name)
    if error is None and len(name.encode("utf-8", "replace")) > LONGEST:
        error = "device name {!r} takes {} B in UTF-8, a certificate has {}".format(name, len(name.encode()), LONGEST)
    return error


def check_name(name: str) -> str:
    """`name` itself; UsageError when it cannot be a device's name."""
    error = name_error(name)
    if error is not None:
        raise UsageError("{}; give another with --name".format(error))
    return name
