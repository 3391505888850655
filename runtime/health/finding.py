"""Finding: the result of one check of a machine."""

from typing import Any, NamedTuple

from edgekit.errors import UsageError
from edgekit.runtime.health import versions

#: ok: as it has to be. warning: a run works, but slower or in another way than planned. failed: a run does not work.
#: unknown: it could not be read; the text says why.
STATES = ("ok", "warning", "failed", "unknown")
GIB = float(1 << 30)


class Finding(NamedTuple):
    """What was found, as words in `text` and as a JSON value (None for none), and what to do about it."""

    name: str
    state: str
    text: str
    value: Any = None
    advice: str = ""


def compared(name: str, version: str, wanted: str, older: str, advice: str, what: str = "") -> Finding:
    """The finding for `version`: ok inside the range `wanted`, a warning above it, and below it the state `older`.

    `what` is a word in front of the version in the text.
    """
    shown = "{}{}".format(what + " " if what else "", version)
    try:
        place = versions.compare(version, versions.parse(wanted))
    except UsageError as error:
        return Finding(name, "unknown", "{}: {}".format(shown, error), version, "look at the device profile's versions")
    if place == 0:
        return Finding(name, "ok", "{}, expected {}".format(shown, wanted), version)
    direction, state = ("older", older) if place < 0 else ("newer", "warning")
    return Finding(name, state, "{} is {} than expected: {}".format(shown, direction, wanted), version, advice)
