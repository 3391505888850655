"""Which kernels code entropy: the compiled ones in `native`, or numpy's in `reference`. Both give the same bytes.

The compiled ones are taken where their library loads (`edgekit.codecs.entropy.native.library`), else numpy's. The
environment's EDGEKIT_CODER, "native" or "numpy", asks for one of the two.
"""

import os
from contextlib import contextmanager
from typing import Iterator, List, NamedTuple, Optional, TypeVar

from edgekit.codecs.entropy.native import library
from edgekit.errors import BackendError, UnknownName

VARIABLE = "EDGEKIT_CODER"
NAMES = ("native", "numpy")
Kernel = TypeVar("Kernel")


class Choice(NamedTuple):
    """Which kernels are used, one of `NAMES`, and why."""

    name: str
    reason: str
    #: Whether the environment asked for them.
    asked: bool


#: The choice that holds, once one was made.
_held: List[Choice] = []


def choice() -> Choice:
    """The choice of this process, made once.

    UnknownName for another value of EDGEKIT_CODER; BackendError where it asks for compiled kernels that do not load.
    """
    if not _held:
        _held.append(choose(os.environ.get(VARIABLE)))
    return _held[0]


def choose(asked: Optional[str]) -> Choice:
    """The choice where `asked` for one of `NAMES`, or where nothing is asked for. Errors as of `choice`."""
    if asked and asked not in NAMES:
        raise UnknownName(VARIABLE, asked, NAMES, "it is one of {}".format(", ".join(NAMES)))
    if asked == "numpy":
        return Choice("numpy", "asked for by {}".format(VARIABLE), True)
    try:
        library.load()
    except BackendError as error:
        if asked:
            raise BackendError("{}={}, but {}; without it numpy is used".format(VARIABLE, asked, error)) from None
        return Choice("numpy", str(error), False)
    if asked:
        return Choice("native", "asked for by {}".format(VARIABLE), True)
    return Choice("native", "the library for this machine loads", False)


def pick(native: Kernel, numpy: Kernel) -> Kernel:
    """The one of two kernels that is used."""
    return native if choice().name == "native" else numpy


@contextmanager
def using(name: str) -> Iterator[None]:
    """Inside, the kernels `name`: for comparing the two. BackendError where they do not load."""
    before = list(_held)
    _held[:] = [choose(name)]
    try:
        yield
    finally:
        _held[:] = before
