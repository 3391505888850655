"""What libraries leave behind when they are imported is no garbage."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While libraries are imported in it nobody looks for garbage, and among what they made nobody ever does.

    torch makes objects by the hundred thousand. To look through them again and again takes a fifth of its import.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
