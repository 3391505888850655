"""Signals that ask a program to end."""

import signal

#: Asked by Ctrl-C, by `kill` and service managers, and by a terminal that is closed. Windows lacks the last.
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def stop_by_signals() -> None:
    """SIGTERM and SIGHUP raise KeyboardInterrupt from now on, as Ctrl-C does; not a SIGHUP that nohup has ignored."""
    for number in STOPS[1:]:
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def ignore_stops() -> None:
    """None of them does anything any more: what is under way is brought to its end."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
