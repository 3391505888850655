"""Names of devices: what one may be called, where it is chosen and where it arrives."""

from typing import Optional

from edgekit.errors import UsageError

#: Longest name of a device, so that the messages that quote it fit a header.
LONGEST_NAME = 64


def name_error(name: str) -> Optional[str]:
    """Why `name` cannot be a device's; None where it can."""
    if not 0 < len(name) <= LONGEST_NAME:
        return "a device name of {} characters, expected 1 to {}".format(len(name), LONGEST_NAME)
    if not name.isprintable() or name != name.strip():
        return "the device name {!r} has characters that cannot be shown, or spaces around it".format(name)
    return None


def check_name(name: str) -> None:
    """Raises UsageError unless `name` can be a device's."""
    wrong = name_error(name)
    if wrong:
        raise UsageError("{}: give another --name".format(wrong))
