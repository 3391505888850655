"""The plots of `bench/accuracy.py`: accuracy against bytes up and both ways, and against the images trained on."""

from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = ("bytes an image up, measured", "bytes an image up and down, measured", "training images")


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Writes the figure to `path`: a line of plots per model and dataset, of those rows that trained longest."""
    kinds = sorted({(row["model"], row["dataset"]) for row in rows})
    figure, axes = plt.subplots(len(kinds), 3, figsize=(22, 5 * len(kinds)), squeeze=False, layout="constrained")
    for line, kind in zip(axes, kinds, strict=True):
        mine = [row for row in rows if (row["model"], row["dataset"]) == kind]
        epochs = max(row["n_epochs"] for row in mine)
        for i, row in enumerate(row for row in mine if row["n_epochs"] == epochs):
            style = {"color": f"C{i % 10}", "marker": "osD^vPX*<>"[i // 10 % 10]}
            ends = [row["accuracy"] - min(row["accuracies"])], [max(row["accuracies"]) - row["accuracy"]]
            style["label"] = row["method"].replace("+none", "")
            for axis, size in zip(line[:2], (row["bytes_up"], row["bytes_up"] + row["bytes_down"]), strict=True):
                axis.errorbar(size, row["accuracy"], yerr=ends, capsize=3, **style)
            images, accuracy = [point[0] for point in row["curve"]], [point[1] for point in row["curve"]]
            line[2].plot(images, accuracy, markersize=3, **style)
        for axis, name in zip(line, PANELS, strict=True):
            axis.set(xlabel=name, ylabel="test accuracy, %", title=f"{kind[0]}, {kind[1]}, {epochs} epochs")
            axis.grid(alpha=0.3)
        for axis in line[:2]:
            axis.set_xscale("log")
        # Beside the row: a model has more methods than a panel has room for.
        handles, labels = line[0].get_legend_handles_labels()
        line[2].legend(handles, labels, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
