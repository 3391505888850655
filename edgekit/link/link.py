"""Link: the rate and delay of a device's connection to the server, read from a text such as "10mbit+20ms"."""

import math
import re
from typing import NamedTuple

from edgekit.errors import UsageError

BITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
#: The name, in a list of links, of the bare connection without emulation.
LOOPBACK = "loopback"
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_RATE = f"({_NUMBER}(?:{'|'.join(BITS)}))"
_TIME = f"({_NUMBER}(?:{'|'.join(SECONDS)}))"
_LINK = re.compile(
    f"{_RATE}(?:/{_RATE})?(?:[+,]{_TIME})?(?:[+,]jitter={_TIME})?(?:[+,]stall={_TIME}@{_TIME})?",
    re.ASCII,
)


class Link(NamedTuple):
    """Bits per second each way, and the round trip time of a message and its answer of no length.

    Each way takes up to `jitter_s` longer, at random. In the last `stall_s` of every `stall_every_s` nothing moves.
    """

    up_bit_s: float
    down_bit_s: float
    round_trip_s: float
    jitter_s: float = 0.0
    stall_s: float = 0.0
    stall_every_s: float = 0.0

    @property
    def moving(self) -> float:
        """The share of the time in which the link does not stall."""
        return 1.0 - self.stall_s / self.stall_every_s if self.stall_s else 1.0

    def __str__(self) -> str:
        """A text that `parse_link` reads, in the largest units that give numbers of at least 1."""
        up, down = _text(self.up_bit_s, BITS), _text(self.down_bit_s, BITS)
        parts = [up if up == down else f"{up}/{down}"]
        if self.round_trip_s:
            parts.append(_text(self.round_trip_s, SECONDS))
        if self.jitter_s:
            parts.append(f"jitter={_text(self.jitter_s, SECONDS)}")
        if self.stall_s:
            parts.append(f"stall={_text(self.stall_s, SECONDS)}@{_text(self.stall_every_s, SECONDS)}")
        return "+".join(parts)


def parse_link(text: str) -> Link:
    """The link that `text` describes: ``RATE[/RATE][+DELAY][+jitter=TIME][+stall=TIME@TIME]``; a comma may stand for +.

    A rate is a number and bit, kbit, mbit or gbit (per second, powers of ten), up before down; one rate is both ways.
    A time is a number and us, ms or s. DELAY is the round trip as `ping` shows it; what is not given is 0.
    UsageError for anything else.

    >>> parse_link("2mbit/10mbit,30ms")[:3]
    (2000000.0, 10000000.0, 0.03)
    >>> str(parse_link("10mbit+50ms+jitter=5ms+stall=200ms@5s"))
    '10mbit+50ms+jitter=5ms+stall=200ms@5s'
    """
    match = _LINK.fullmatch(_plain(text))
    if match is None:
        raise UsageError(
            f"link '{text}': expected RATE[/RATE][+DELAY][+jitter=TIME][+stall=TIME@TIME], for example 10mbit or "
            "10mbit+20ms or 2mbit/10mbit+30ms+jitter=5ms+stall=300ms@10s; rates in bit, kbit, mbit or gbit per second, "
            "up before down; the round trip and other times in us, ms or s"
        )
    up, down, *times = match.groups()
    link = Link(_value(up, BITS), _value(down or up, BITS), *(_value(time or "0s", SECONDS) for time in times))
    if min(link.up_bit_s, link.down_bit_s) < 1 or not all(map(math.isfinite, link)):
        raise UsageError(f"link '{text}': expected rates of at least 1 bit per second, and no infinite figures")
    if times[-1] and not 0 < link.stall_s < link.stall_every_s:
        raise UsageError(f"link '{text}': expected a stall that is shorter than the time from one to the next")
    return link


def split_links(text: str) -> dict[str, Link | None]:
    """The links of a list by their texts, with None for "loopback". A comma separates links, ``+`` the parts of one.

    UsageError for a text that is no link, or that occurs twice.

    >>> list(split_links("1mbit, 10mbit+50ms, loopback"))
    ['1mbit', '10mbit+50ms', 'loopback']
    """
    links: dict[str, Link | None] = {}
    for name in _plain(text).split(","):
        if name in links:
            raise UsageError(f"links '{text}': {name} is there twice")
        try:
            links[name] = None if name == LOOPBACK else parse_link(name)
        except UsageError as error:
            raise UsageError(f"{error}; in a list a comma parts links, or {LOOPBACK}") from None
    return links


def _plain(text: str) -> str:
    return text.replace(" ", "").lower()


def _value(text: str, units: dict[str, float]) -> float:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * units[text[len(number) :]]


def _text(value: float, units: dict[str, float]) -> str:
    """ "10mbit" of 1e7: in the largest of `units` that gives a number of at least 1."""
    scale, unit = max(
        ((scale, unit) for unit, scale in units.items() if scale <= value),
        default=min((scale, unit) for unit, scale in units.items()),
    )
    return f"{value / scale:.9f}".rstrip("0").rstrip(".") + unit
