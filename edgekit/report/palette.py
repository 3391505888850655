"""Colours of charts: one list for white paper and one for black, told apart by colour-blind readers.

Charts are drawn with the light ones. In a page each is replaced by a variable of the style sheet, so that the same
picture follows the reader's theme.
"""

from collections.abc import Iterable

#: Okabe and Ito's hues, darkened until each has a contrast of 4.5 on white, or lightened until it has it on near-black.
LIGHT = (
    "#0072b2", "#c94f00", "#5f6670", "#008060", "#b04a85", "#966800", "#6a51a3", "#7a4b2a", "#17747f", "#a3213f",
    "#86bfe6",
)  # fmt: skip
DARK = (
    "#4db2f0", "#ff8f45", "#b3bac4", "#2fcb9e", "#ee9cc9", "#f0b840", "#b39deb", "#c99b76", "#5fd0dc", "#ff7a8a",
    "#9ad6fa",
)  # fmt: skip
#: Not a codec's: the lighter blue of encoding beside computing.
ENCODE = 10
INK, MUTED, LINE, SURFACE = "#1b1f24", "#59626d", "#d9dde3", "#fefefe"
MARKERS = "osD^vPX*<>p"
#: These have the same colour in every chart.
CODECS = {"sgq": 0, "uq": 1, "fp32": 2, "pq": 3, "clio": 4, "topk": 5}


def colours(codecs: Iterable[str]) -> list[int]:
    """Places for one chart's series: a codec's own where it is free, else the next; no place twice."""
    taken: list[int] = []
    for codec in codecs:
        own = CODECS.get(codec, len(CODECS))
        order = [own, *range(len(CODECS), ENCODE), *range(len(CODECS)), *range(2 * ENCODE, 3 * ENCODE + len(taken))]
        taken.append(next(place for place in order if place not in taken))
    return taken


def colour(place: int) -> str:
    """After the last colour comes the first again, with another marker."""
    return LIGHT[place if place <= ENCODE else place % ENCODE]


def marker(place: int) -> str:
    """The marker that goes with a place."""
    return MARKERS[(place + 3 * (place // (2 * ENCODE))) % len(MARKERS)]


def variables() -> dict[str, str]:
    """Colour as drawn -> its name in the style sheet."""
    series = {colour: f"var(--series-{i})" for i, colour in enumerate(LIGHT)}
    return {**series, INK: "currentColor", MUTED: "var(--muted)", LINE: "var(--line)", SURFACE: "var(--surface)"}
