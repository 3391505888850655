"""What the C library does with memory that is free again."""

import ctypes

#: mallopt's name for the most arenas, and how many there are to be.
_ARENA_MAX, ARENAS = -8, 2


def few_arenas() -> None:
    """Lets all threads take memory from few places; before they start.

    glibc gives threads arenas of their own, up to eight for each processor, and what one thread has freed another does
    not get. Each device's thread takes and frees features: with 64 devices a server grew by a gigabyte a minute. Only
    glibc knows mallopt; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, ARENAS)
