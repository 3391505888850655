"""Link: what a device's line to the server carries, read from "10mbit+20ms"."""

import math
import re
from typing import Dict, NamedTuple, Optional

from edgekit.errors import UsageError

BITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
#: In a list of links: the bare connection, nothing emulated.
LOOPBACK = "loopback"
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_RATE = "({}(?:{}))".format(_NUMBER, "|".join(BITS))
_TIME = "({}(?:{}))".format(_NUMBER, "|".join(SECONDS))
_LINK = re.compile(
    "{rate}(?:/{rate})?(?:[+,]{time})?(?:[+,]jitter={time})?(?:[+,]stall={time}@{time})?".format(
        rate=_RATE, time=_TIME
    ),
    re.ASCII,
)


class Link(NamedTuple):
    """Bits per second each way, and the time a message and its answer spend on the way, however short they are.

    Each way takes up to `jitter_s` longer. In the last `stall_s` of every `stall_every_s` nothing moves.
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
        parts = [up if up == down else "{}/{}".format(up, down)]
        if self.round_trip_s:
            parts.append(_text(self.round_trip_s, SECONDS))
        if self.jitter_s:
            parts.append("jitter={}".format(_text(self.jitter_s, SECONDS)))
        if self.stall_s:
            parts.append("stall={}@{}".format(_text(self.stall_s, SECONDS), _text(self.stall_every_s, SECONDS)))
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
            "link '{}': expected RATE[/RATE][+DELAY][+jitter=TIME][+stall=TIME@TIME], for example 10mbit or 10mbit+20ms"
            " or 2mbit/10mbit+30ms+jitter=5ms+stall=300ms@10s; rates in bit, kbit, mbit or gbit per second, up before "
            "down; the round trip and other times in us, ms or s".format(text)
        )
    up, down, *times = match.groups()
    link = Link(_value(up, BITS), _value(down or up, BITS), *(_value(time or "0s", SECONDS) for time in times))
    if min(link.up_bit_s, link.down_bit_s) < 1 or not all(map(math.isfinite, link)):
        raise UsageError("link '{}': expected rates of at least 1 bit per second, and no infinite figures".format(text))
    if times[-1] and not 0 < link.stall_s < link.stall_every_s:
        raise UsageError("link '{}': expected a stall that is shorter than the time from one to the next".format(text))
    return link


def split_links(text: str) -> Dict[str, Optional[Link]]:
    """Every link of a list by its name in it, with None for "loopback": ``,`` parts links, ``+`` the parts of one.

    UsageError for a text that is no link, and for one that is there twice.

    >>> list(split_links("1mbit, 10mbit+50ms, loopback"))
    ['1mbit', '10mbit+50ms', 'loopback']
    """
    links: Dict[str, Optional[Link]] = {}
    for name in _plain(text).split(","):
        if name in links:
            raise UsageError("links '{}': {} is there twice".format(text, name))
        try:
            links[name] = None if name == LOOPBACK else parse_link(name)
        except UsageError as error:
            raise UsageError("{}; in a list a comma parts links, or {}".format(error, LOOPBACK)) from None
    return links


def _plain(text: str) -> str:
    return text.replace(" ", "").lower()


def _value(text: str, units: Dict[str, float]) -> float:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * units[text[len(number) :]]


def _text(value: float, units: Dict[str, float]) -> str:
    scale, unit = max(
        ((scale, unit) for unit, scale in units.items() if scale <= value),
        default=min((scale, unit) for unit, scale in units.items()),
    )
    return "{:.9f}".format(value / scale).rstrip("0").rstrip(".") + unit
