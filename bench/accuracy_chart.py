"""The plots of `bench/accuracy.py`: accuracy against bytes, and convergence against images and against bytes."""

from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Writes the figure, a line of three plots per model and dataset, to `path`."""
    kinds = sorted({(row["model"], row["dataset"]) for row in rows})
    figure, axes = plt.subplots(len(kinds), 3, figsize=(22, 5 * len(kinds)), squeeze=False, layout="constrained")
    for line, kind in zip(axes, kinds, strict=True):
        mine = [row for row in rows if (row["model"], row["dataset"]) == kind]
        for i, row in enumerate(mine):
            colour, marker = f"C{i % 10}", "osD^vPX*<>"[i // 10 % 10]
            label = f"{row['method'].replace('+none', '')}, {row['n_epochs']} epochs"
            both = row["bytes_up"] + row["bytes_down"]
            ends = [row["accuracy"] - min(row["accuracies"])], [max(row["accuracies"]) - row["accuracy"]]
            line[0].errorbar(both, row["accuracy"], yerr=ends, color=colour, marker=marker, capsize=3, label=label)
            images, accuracy = [point[0] for point in row["curve"]], [point[1] for point in row["curve"]]
            line[1].plot(images, accuracy, color=colour, marker=marker, markersize=3)
            line[2].plot([n * both / 1e6 for n in images], accuracy, color=colour, marker=marker, markersize=3)
        labels = ("bytes an image, up and down, measured", "training images", "MB moved, up and down")
        for axis, name in zip(line, labels, strict=True):
            axis.set(xlabel=name, ylabel="test accuracy, %", title=f"{kind[0]}, {kind[1]}")
            axis.grid(alpha=0.3)
        for axis in (line[0], line[2]):
            axis.set_xscale("log")
        # Beside the row: a model has more methods than a panel has room for.
        handles, labels = line[0].get_legend_handles_labels()
        line[2].legend(handles, labels, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
