"""Seconds of a training over a line, computed from what a training without one took and sent.

One batch is in flight, so nothing overlaps: the device computes, its bytes go up, the server computes, bytes come down.
"""

from collections.abc import Mapping
from typing import Any

from edgekit.errors import UsageError
from edgekit.link.link import Link


def computed(epoch: Mapping[str, Any], link: Link | None) -> float:
    """The seconds until the end of `epoch`, a row of a training that had no line, had it been over `link`.

    To the seconds that the training took come all its bytes at the line's rates, and a round trip for each batch.
    """
    seconds = float(epoch["seconds"]["train"])
    if link is None:
        return seconds
    up, down, steps = (int(epoch[name]) for name in ("bytes_up", "bytes_down", "steps"))
    return seconds + 8 * up / link.up_bit_s + 8 * down / link.down_bit_s + steps * link.round_trip_s


def check_computable(links: Mapping[str, Link | None]) -> None:
    """UsageError for a line whose seconds do not follow from rates and round trip."""
    for name, link in links.items():
        if link is not None and (link.jitter_s or link.stall_s):
            raise UsageError(
                f"link {name}: seconds are computed from rates and round trip, jitter and stalls have to be measured: "
                "--line measured"
            )
