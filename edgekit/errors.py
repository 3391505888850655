"""Every error that edgekit raises on purpose, and the exit code of the process for each class.

::

    EdgekitError                1   anything below, caught in one place by the command line
    ├── UsageError              2   an option or argument that makes no sense (also a ValueError)
    │   └── UnknownName         2   a model, layer, codec, dataset ... that is not in the table
    ├── ShapeError              3   an array of the wrong shape or dtype (also a ValueError)
    ├── ExportError             4   a network that cannot be split, exported or differentiated
    ├── BundleError             5   a bundle that is damaged, incomplete or of another format
    ├── DataError               6   a dataset file that is missing, damaged or not what it says
    ├── PayloadError            7   bytes from outside that do not parse; carries the offset
    ├── BackendError            8   an inference engine that is missing or failed
    ├── TransportError          9   the line is broken: nothing listens, or the peer went away
    ├── Refused                10   the server understood and said no (wrong bundle, wrong step ...)
    ├── ChildFailed            11   a process that edgekit started ended with an error
    ├── Diverged               12   training went to infinity: a weight is no number any more
    ├── DeployError            13   a board that cannot be reached, or is not fit for what was asked of it
    ├── Collapsed              14   training ended with a network that is no better than guessing
    ├── Quarantined            15   the server learns no more from this device: what it sends stands out
    └── IdentityError          16   a certificate that does not hold, or TLS on one side of the line only

A message states what was got, what was expected and what to do about it.
"""

import difflib
from typing import Iterable


class EdgekitError(Exception):
    """Base of all errors; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(EdgekitError, ValueError):
    """An option or argument that makes no sense."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not in a table; the message suggests similar names and says how to list all."""

    def __init__(self, what: str, name: str, known: Iterable[str], how_to_list: str) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = "did you mean {}? ".format(" or ".join(near)) if near else ""
        super().__init__("unknown {} '{}': {}{}".format(what, name, hint, how_to_list))
        self.name = name
        self.near = near


class ShapeError(EdgekitError, ValueError):
    """An array whose shape or dtype is not the one declared."""

    exit_code = 3


class ExportError(EdgekitError):
    """A network that cannot be split, exported or differentiated as asked."""

    exit_code = 4


class BundleError(EdgekitError):
    """A bundle that is damaged, incomplete, or of a format this version does not read."""

    exit_code = 5


class DataError(EdgekitError):
    """A dataset file that is missing, damaged, or not what it claims to be."""

    exit_code = 6


class PayloadError(EdgekitError, ValueError):
    """Bytes from outside that do not parse; `offset` is where, in bytes from the start of what was read."""

    exit_code = 7

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__("{} (at byte {})".format(message, offset))
        self.offset = offset


class BackendError(EdgekitError):
    """An inference engine that is missing, or that failed; vendor errors are translated to this."""

    exit_code = 8


class TransportError(EdgekitError):
    """The connection failed: nothing listens there, the peer went away, or it was silent for too long."""

    exit_code = 9


class Refused(EdgekitError):
    """The other side understood the request and refused it; the message is its reason."""

    exit_code = 10


class ChildFailed(EdgekitError):
    """A process that edgekit started ended with an error; its last words are in the message."""

    exit_code = 11


class Diverged(EdgekitError):
    """Training diverged: a weight is infinite or NaN, or the loss stays far above that of guessing."""

    exit_code = 12


class DeployError(EdgekitError):
    """A board that cannot be reached, or is not fit for what was asked of it."""

    exit_code = 13


class Collapsed(EdgekitError):
    """Training ended, but the network it gave is no better than guessing."""

    exit_code = 14


class Quarantined(EdgekitError):
    """The server learns no more from a device, because what it sends stands out; the message says why."""

    exit_code = 15


class IdentityError(EdgekitError):
    """A certificate that is missing, expired, revoked, of another CA or another name; or TLS on one side only."""

    exit_code = 16
