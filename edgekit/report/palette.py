"""The colours of charts, for a light and for a dark background; colour-blind readers can tell them apart.

Charts are drawn in the colours for light. In a page each colour is replaced by a variable of the style sheet, so that
the same chart follows the reader's theme.
"""

from collections.abc import Iterable

#: Okabe and Ito's hues, darkened to a contrast of 4.5 on white, or lightened to that on near-black.
LIGHT = (
    "#0072b2", "#c94f00", "#5f6670", "#008060", "#b04a85", "#966800", "#6a51a3", "#7a4b2a", "#17747f", "#a3213f",
    "#86bfe6",
)  # fmt: skip
DARK = (
    "#4db2f0", "#ff8f45", "#b3bac4", "#2fcb9e", "#ee9cc9", "#f0b840", "#b39deb", "#c99b76", "#5fd0dc", "#ff7a8a",
    "#9ad6fa",
)  # fmt: skip
#: The place of "packs and unpacks", a lighter blue beside that of "device computes"; no codec has it.
ENCODE = 10
INK, MUTED, LINE, SURFACE = "#1b1f24", "#59626d", "#d9dde3", "#fefefe"
MARKERS = "osD^vPX*<>p"
#: Codec -> its place in every chart.
CODECS = {"sgq": 0, "uq": 1, "fp32": 2, "pq": 3, "clio": 4, "topk": 5}


def colours(codecs: Iterable[str]) -> list[int]:
    """A place for each series of a chart: the codec's own if it is free, else the next free one."""
    taken: list[int] = []
    for codec in codecs:
        own = CODECS.get(codec, len(CODECS))
        order = [own, *range(len(CODECS), ENCODE), *range(len(CODECS)), *range(2 * ENCODE, 3 * ENCODE + len(taken))]
        taken.append(next(place for place in order if place not in taken))
    return taken


def colour(place: int) -> str:
    """The colour of a place; after the last colour the first comes again, with another marker."""
    return LIGHT[place if place <= ENCODE else place % ENCODE]


def marker(place: int) -> str:
    """The marker of a place."""
    return MARKERS[(place + 3 * (place // (2 * ENCODE))) % len(MARKERS)]


def variables() -> dict[str, str]:
    """Colour as drawn -> its name in the style sheet."""
    series = {colour: f"var(--series-{i})" for i, colour in enumerate(LIGHT)}
    return {**series, INK: "currentColor", MUTED: "var(--muted)", LINE: "var(--line)", SURFACE: "var(--surface)"}
