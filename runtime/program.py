"""The frame of a program of the device part: its errors become a line and an exit code."""

import signal
import sys
from typing import Callable

from edgekit.errors import EdgekitError


def exit_code(work: Callable[[], object]) -> int:
    """Does `work`, all of a process; returns its exit code (see `edgekit.errors`), after an error said why.

    SIGTERM stops it as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work()
    except EdgekitError as error:
        sys.stderr.write("error: {}\n".format(error))
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return 0
