"""A plan as a picture: the step of every cut, split by resource, with its images a second."""

import textwrap
from collections.abc import Sequence

from edgekit.export.plan.predict import Prediction, Step

#: Okabe and Ito's palette, which colour-blind readers tell apart.
COLOURS = {"device": "#0072B2", "uplink": "#D55E00", "downlink": "#E69F00", "latency": "#999999", "server": "#009E73"}
#: Cuts in one picture, which more would make unreadable.
MOST = 40


def draw(path: str, predictions: Sequence[Prediction], title: str) -> None:
    """Writes a PNG of at most `MOST` of `predictions`, in their order, to `path`."""
    from matplotlib.figure import Figure

    shown = predictions[:MOST]
    figure = Figure(figsize=(11, 2.0 + 0.32 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    rows = range(len(shown))
    left = [0.0] * len(shown)
    for resource in Step._fields:
        widths = [1e3 * getattr(each.step, resource) for each in shown]
        axes.barh(rows, widths, left=left, height=0.7, color=COLOURS[resource], label=resource)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, each, end in zip(rows, shown, left, strict=True):
        axes.text(end, row, f" {each.images_per_s:.3g} images/s, {each.binds} binds", va="center", fontsize=8)
    axes.set_yticks(rows, [f"{each.cut.layer}  {'x'.join(map(str, each.cut.shape))}" for each in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * max(left, default=1.0))
    axes.set_xlabel("one training step of one device, milliseconds")
    axes.set_ylabel("cut behind layer,\nfeature (C x h x w)")
    figure.suptitle(textwrap.fill(title, 110), fontsize=10)
    figure.legend(loc="outside lower right", ncols=len(Step._fields), fontsize=8)
    figure.savefig(path, dpi=120, format="png")
