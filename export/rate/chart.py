"""What rate control measured as a picture: bytes and error of every uplink, and of the gradients of the chosen one."""

from typing import Any

#: Okabe and Ito's palette, which colour-blind readers tell apart.
OTHERS, CHOSEN = "#0072B2", "#D55E00"


def draw(path: str, rate: dict[str, Any], title: str) -> None:
    """Writes a PNG of a bundle's "rate" to `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for each in rate["uplinks"]:
        chosen = (each["groups"], each["bits"]) == (rate["groups"], rate["bits"])
        at = each["bytes"] + each["update_bytes"], each["error"]
        left.plot(*at, "D" if chosen else "o", color=CHOSEN if chosen else OTHERS, zorder=2 + chosen)
        left.annotate(f"{each['groups']}x{each['bits']}", at, (4, 3), textcoords="offset points", fontsize=7)
        if chosen:
            downs = each["downlinks"]
            right.plot([d["bytes"] for d in downs], [d["deviation"] for d in downs], "o-", color=OTHERS)
            for down in downs:
                at = down["bytes"], down["deviation"]
                if down["policy"] == rate["gradient"]:
                    right.plot(*at, "D", color=CHOSEN)
                right.annotate(down["policy"].rpartition(":")[2], at, (5, 4), textcoords="offset points", fontsize=8)
    left.set(xscale="log", xlabel="bytes up an image, updates included", ylabel="error of the decoded feature")
    left.set_title("uplinks, groups x bits", fontsize=9)
    right.set(xlabel="bytes down an image", ylabel="deviation of the gradient")
    right.set_title(f"gradients with {rate['groups']} groups, {rate['bits']} bits", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120, format="png")
