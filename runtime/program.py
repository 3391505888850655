"""The frame of a program of the device part: its errors become a line and an exit code."""

import sys
from typing import Callable

from edgekit.errors import EdgekitError
from edgekit.signals import stop_by_signals


def exit_code(work: Callable[[], object]) -> int:
    """Does `work`, all of a process; returns its exit code (see `edgekit.errors`), after an error said why.

    SIGTERM stops it as Ctrl-C does, and so does SIGHUP, of a terminal that is closed, unless nohup has it ignored.
    """
    stop_by_signals()
    try:
        work()
    except EdgekitError as error:
        sys.stderr.write("error: {}\n".format(error))
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return 0
