"""How well computed seconds of a training agree with measured ones: the same trainings without a line and over lines.

\b
python bench/computed_seconds.py --out bench/results/computed-seconds.json
python bench/computed_seconds.py --show bench/results/computed-seconds.json

Real processes, as of `edgekit measure --to-accuracy`, once with `--line computed` and once with `--line measured`, in
turn. Ratios are within a round, of the seconds until the end of the last epoch: first of those that the line took, what
a device waits for the network; then of all, where computing is measured twice and differs with the machine's load.
Accuracies of both must be the same.
"""

import statistics
import sys
from typing import Any

import markdown
import record
from arguments import Arguments

from edgekit.export.settings import BoardSettings, NamedData, NamedNetwork
from edgekit.launch.settings import Server
from edgekit.link.link import split_links
from edgekit.measure.line_time import computed
from edgekit.measure.methods import parse_list
from edgekit.measure.to_accuracy import Plan, train

HEADS = ("method", "link", "line, measured, s", "computed, s", "computed / measured", "all, computed / measured")


def trainings(plan: Plan) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Method and link -> the training's last epoch, with its "accuracies"."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}

    def keep(row: dict[str, Any]) -> None:
        accuracies = [each["accuracy"] for each in row["epochs"]]
        found[row["codec"], row["link"]] = {**row["epochs"][-1], "accuracies": accuracies}
        sys.stderr.write(f"{row['codec']} over {row['link'] or 'no line'}: {row['epochs'][-1]['seconds']}\n")

    train(plan, (), lambda method, link: None, lambda event: None, keep)
    return found


def rows(plan: Plan, repeats: int) -> list[dict[str, Any]]:
    """One row for each method, link and round."""
    found = []
    for repeat in range(repeats):
        without = trainings(plan._replace(measured=False))
        for (method, link), over in trainings(plan._replace(measured=True)).items():
            apart = without[method, None]
            assert link is not None
            if apart["accuracies"] != over["accuracies"]:
                sys.exit(f"{method} over {link}: accuracies {over['accuracies']}, without a line {apart['accuracies']}")
            seconds = computed(apart, plan.links[link])
            found.append({
                "method": method, "link": link, "repeat": repeat, "computed_s": seconds,
                "without": apart, "over": over,
            })  # fmt: skip
    return found


def table(found: list[dict[str, Any]]) -> str:
    """The rows' medians, ratios with their lowest and highest: of the seconds that the line took, and of all."""
    lines = []
    for key in dict.fromkeys((row["method"], row["link"]) for row in found):
        mine = [row for row in found if (row["method"], row["link"]) == key]
        measured, line = [row["over"]["seconds"]["network"] for row in mine], [_line(row) for row in mine]
        ratios = [one / other for one, other in zip(line, measured, strict=True)]
        whole = [row["computed_s"] / row["over"]["seconds"]["train"] for row in mine]
        seconds = (f"{statistics.median(each):.2f}" for each in (measured, line))
        lines.append([*key, *seconds, _spread(ratios), _spread(whole)])
    return markdown.table(HEADS, lines)


def _line(row: dict[str, Any]) -> float:
    """Computed seconds of waiting for the line: what is waited without one as well, and what the line adds."""
    seconds = row["without"]["seconds"]
    return float(seconds["network"] + row["computed_s"] - seconds["train"])


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(model="vgg11_thin", cut="features.10", dataset="digits", data=None, limit=128)
    arguments.add(codecs="uq,sgq", links="1mbit+50ms", epochs=2, batch=32, repeats=2, seed=0)
    options = arguments.parse_or_show(lambda made: table(made["rows"]))
    plan = Plan(
        NamedNetwork(options.model, options.cut), NamedData(options.dataset, options.data, options.limit),
        BoardSettings(static_batch=options.batch), tuple(parse_list(options.codecs)), split_links(options.links),
        measured=True, epochs=options.epochs, evaluate_every=options.epochs, augment=None, batch=options.batch,
        in_flight=1, server=Server(), seed=options.seed,
    )  # fmt: skip
    plan.check()
    made = {
        **record.head("edgekit", "numpy", "onnxruntime", "torch"),
        "setting": vars(options),
        "rows": rows(plan, options.repeats),
    }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()
