"""Link: what a device's line to the server carries, read from "10mbit,20ms"."""

import math
import re
from typing import NamedTuple

from edgekit.errors import UsageError

BITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_RATE = rf"({_NUMBER})({'|'.join(BITS)})"
_LINK = re.compile(rf"{_RATE}(?:/{_RATE})?(?:,({_NUMBER})({'|'.join(SECONDS)}))?", re.ASCII)


class Link(NamedTuple):
    """Bits per second each way, and the time a message and its answer spend on the way, however short they are."""

    up_bit_s: float
    down_bit_s: float
    round_trip_s: float

    def __str__(self) -> str:
        """A text that `parse_link` reads, in the largest units that give numbers of at least 1."""
        up, down = _text(self.up_bit_s, BITS), _text(self.down_bit_s, BITS)
        return f"{up if up == down else f'{up}/{down}'},{_text(self.round_trip_s, SECONDS)}"


def parse_link(text: str) -> Link:
    """The link that `text` describes: ``RATE[/RATE][,DELAY]``, up before down; one rate is both ways.

    A rate is a number and bit, kbit, mbit or gbit (per second, powers of ten); DELAY, the round trip as `ping` shows
    it, a number and us, ms or s, is 0 when it is not given. UsageError for anything else.

    >>> parse_link("2mbit/10mbit,30ms")
    Link(up_bit_s=2000000.0, down_bit_s=10000000.0, round_trip_s=0.03)
    """
    match = _LINK.fullmatch(text.replace(" ", "").lower())
    if match is None:
        raise UsageError(
            f"link '{text}': expected RATE[/RATE][,DELAY], for example 10mbit or 10mbit,20ms or 2mbit/10mbit,30ms; "
            "rates in bit, kbit, mbit or gbit per second, up before down; the round trip in us, ms or s"
        )
    up, up_unit, down, down_unit, delay, delay_unit = match.groups()
    up_bit_s = float(up) * BITS[up_unit]
    link = Link(
        up_bit_s,
        float(down) * BITS[down_unit] if down else up_bit_s,
        float(delay) * SECONDS[delay_unit] if delay else 0.0,
    )
    if min(link.up_bit_s, link.down_bit_s) < 1 or not all(map(math.isfinite, link)):
        raise UsageError(f"link '{text}': expected rates of at least 1 bit per second, and no infinite figures")
    return link


def _text(value: float, units: dict[str, float]) -> str:
    scale, unit = max(
        ((scale, unit) for unit, scale in units.items() if scale <= value),
        default=min((s, u) for u, s in units.items()),
    )
    return f"{value / scale:.9f}".rstrip("0").rstrip(".") + unit
