"""Time to an accuracy of runs of bench/accuracy.py: their curves and bytes, and images/s measured apart.

\b
python bench/accuracy.py vgg11_thin --data DIR --every 1 --epochs 30 --methods FP32,UQ-4,SGQ-4 --out runs/long
edgekit measure vgg11_thin --dataset cifar10 --data DIR --batch 64 --links loopback --codecs ... --out rates.json
python bench/time_to_accuracy.py runs/long --rates rates.json --to 75,80 --links 0.1mbit,1mbit --out to-accuracy.json
edgekit report to-accuracy.json
python bench/time_to_accuracy.py --show to-accuracy.json

The record is one of `edgekit measure --to-accuracy`, and its seconds are computed. What a batch takes without a line is
not that of the runs, whose halves are both in PyTorch, in one process: `--rates` names a record of `edgekit measure`
whose loopback cells have the same methods, network, cut and batch; or says images/s, one figure for all methods or
"NAME=FIGURE;NAME=FIGURE". Nothing is interpolated: an accuracy is reached in the first epoch whose test came to it.
`--methods` chooses methods, names them and puts them in order, the first is what others are compared with:
"UQ=uniform:bits=4+stochastic:bits=4;FP32=raw+none". Seeds of one method are methods of their own.
"""

import glob
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import markdown
import record
from accuracy import LATER, METHODS, told
from arguments import Arguments
from trainer import AUGMENT

from edgekit.cli.to_accuracy import accuracies
from edgekit.codecs.registry import feature_codec
from edgekit.export.models.registry import MODELS
from edgekit.line.meter import TRAINING_KINDS
from edgekit.link.link import split_links
from edgekit.measure import to_accuracy_record
from edgekit.measure.line_time import check_computable
from edgekit.measure.methods import Method, parse
from edgekit.measure.to_accuracy import PARTS
from edgekit.report.markdown import table as rendered
from edgekit.report.numbers import number
from edgekit.report.records import Measure, ToAccuracy, read
from edgekit.report.to_accuracy import table

Row = dict[str, Any]
#: What all runs must have in common, of their plans.
SAME = ("model", "cut", "epochs", "batch", "lr", "weight_decay", "augment", "mixed", "every")


def method_of(run: Row) -> Method:
    """The method of a run, with all settings of its codec."""
    method = parse(run["method"], METHODS)
    return method._replace(config=feature_codec(method.codec, method.config).config)


def key(method: Method) -> tuple[str, str, str]:
    """What makes two methods the same, whatever they are called."""
    config = feature_codec(method.codec, method.config).config
    return method.codec, repr(sorted(config.items())), method.gradient


def besides(run: Row) -> str:
    """What sets a run apart besides its method, in words: ", local loss 0.5"."""
    return told("", {**LATER, **run["plan"]})


def epochs(run: Row) -> list[Row]:
    """The evaluated epochs of a run, without their seconds; bytes are those of all training frames so far."""
    batch, found = run["plan"]["batch"], []
    for line in run["epochs"]:
        images, each = line["images"], line["images"] // line["epoch"]
        if images != line["epoch"] * each:
            sys.exit(f"{run['method']}: {images} images after {line['epoch']} epochs are no whole epochs")
        sent = {way: _training_bytes(line["bytes"], way) for way in ("up", "down")}
        for way, n in sent.items():
            if round(line[f"bytes_{way}_per_image"] * images) != n:
                sys.exit(f"{run['method']}, epoch {line['epoch']}: bytes {way} by kind are not those of an image")
        if "accuracy" in line:
            # As `Device.steps_per_epoch` splits them.
            steps = line["epoch"] * min(-(-each // batch), each // 2)
            bytes_so_far = {f"bytes_{way}": n for way, n in sent.items()}
            found.append({**{name: line[name] for name in ("epoch", "images", "accuracy")}, "steps": steps,
                          **bytes_so_far})  # fmt: skip
    return found


def _training_bytes(by_kind: dict[str, int], way: str) -> int:
    return sum(by_kind.get(f"{way}.{kind}", 0) for kind in TRAINING_KINDS)


def rates_of(text: str, run: Row) -> Measure | None:
    """The record of `edgekit measure` that `text` names, which must go with `run`; None where `text` is figures."""
    if not os.path.exists(text):
        return None
    found = read(text)
    if not isinstance(found, Measure):
        sys.exit(f"--rates {text}: expected a record that `edgekit measure --out FILE` wrote")
    setting, plan = found.data["setting"], run["plan"]
    cut = plan["cut"] or MODELS[plan["model"]].cut
    if besides(run):
        sys.exit(
            f"--rates {text}: measured without{besides(run)[1:]}, which the run of {run['method']} has: give figures"
        )
    for name, here in (("model", plan["model"]), ("cut", cut), ("feature", run["feature"]), ("batch", plan["batch"])):
        if setting[name] != here:
            sys.exit(f"--rates {text}: measured with {name} {setting[name]}, the runs have {here}")
    return found


def seconds_per_image(rates: Measure | None, text: str, name: str, method: Method) -> dict[str, float]:
    """What an image of `method` takes without a line: "train", all of it, and its parts where they were measured."""
    if rates is None:
        figures = dict(part.strip().rpartition("=")[::2] for part in text.split(";"))
        figure = figures.get(name, figures.get(""))
        if figure is None:
            sys.exit(f"--rates {text}: no such file, and no images/s of {name}")
        return {"train": 1 / float(figure)}
    for row in rates.data["results"]:
        about = rates.data["codecs"][row["codec"]]
        same = key(Method("", "", about["codec"], about["config"], about["gradient"])) == key(method)
        if same and (row["link"], row["in_flight"]) == ("loopback", 1):
            parts = {part: row["seconds_per_image"][part] for part in PARTS}
            return {"train": 1 / row["images_per_s"]["median"], **parts}
    sys.exit(f"--rates {text}: no images/s of {method.text} over loopback with 1 batch in flight")


def runs(sources: Sequence[str]) -> list[Row]:
    """The runs in files, and in folders of them."""
    found = []
    for source in sources:
        paths = sorted(glob.glob(os.path.join(source, "*.json"))) if os.path.isdir(source) else [source]
        found += [record.read(path) for path in paths]
    if not found:
        sys.exit(f"no runs in {', '.join(sources)}")
    for run in found[1:]:
        pairs = [(name, found[0]["plan"].get(name), run["plan"].get(name)) for name in SAME]
        pairs += [(name, found[0][name], run[name]) for name in ("dataset", "limit", "feature")]
        for name, one, other in pairs:
            if one != other:
                sys.exit(f"runs of {found[0]['method']} and {run['method']} differ in {name}: {one} and {other}")
    return found


def chosen(found: Sequence[Row], methods: str | None, seed: int | None) -> dict[str, tuple[Method, Row]]:
    """Name -> method and run, in the order of `methods`."""
    mine = [run for run in found if seed is None or run["plan"]["seed"] == seed]
    if methods is None:
        wanted = list({key(each): each for each in map(method_of, mine)}.values())
        names = [each.name for each in wanted]
        wanted = [each._replace(name=each.text) if names.count(each.name) > 1 else each for each in wanted]
    else:
        wanted = [parse(text.strip(), METHODS) for text in methods.split(";")]
    named: dict[str, tuple[Method, Row]] = {}
    for method in wanted:
        alike = [run for run in mine if key(method_of(run)) == key(method)]
        if not alike:
            sys.exit(f"no run of {method.text}: there are {', '.join(dict.fromkeys(run['method'] for run in mine))}")
        for run in sorted(alike, key=lambda run: (besides(run), int(run["plan"]["seed"]))):
            seeds = [other for other in alike if besides(other) == besides(run)]
            name = method.name + besides(run) + (f", seed {run['plan']['seed']}" if len(seeds) > 1 else "")
            if name in named:
                sys.exit(f"two runs of {name}: leave out the folder or file of one")
            named[name] = method, run
    return named


#: Seconds of a unit, which is used from two of it on.
UNITS = {"days": 86400, "h": 3600, "min": 60, "s": 1}


def duration(seconds: float) -> str:
    """`seconds` in the largest unit that there are two of.

    >>> duration(960.2), duration(3.456), duration(190000)
    ('16.0 min', '3.46 s', '2.20 days')
    """
    unit, size = next((item for item in UNITS.items() if seconds >= 2 * item[1]), ("s", 1))
    return f"{number(float(seconds / size))} {unit}"


def brief(data: Row) -> str:
    """The Markdown table of a record, a row for each line and accuracy, and a column for each method."""
    heads = ["line", "accuracy, %", *(f"{codec}, {data['line']}" for codec in data["codecs"])]
    rows = []
    for link in data["links"]:
        results = {row["codec"]: row for row in data["results"] if row["link"] == link}
        for i, wanted in enumerate(data["accuracies"]):
            cells = []
            for codec in data["codecs"]:
                if codec not in results:
                    cells.append("")  # a training that was not made
                    continue
                reached, best = results[codec]["reached"][i], results[codec]["best"]["accuracy"]
                times = f" ({number(reached['times'])}x)" if reached["times"] and codec != data["against"] else ""
                never = f"never, best {best:.1f}"
                cells.append(never if reached["seconds"] is None else duration(reached["seconds"]) + times)
            rows.append([link, f"{wanted:g}", *cells])
    return markdown.table(heads, rows)


def show(path: str, short: bool) -> None:
    """Prints the table of a record."""
    found = read(path)
    if not isinstance(found, ToAccuracy):
        sys.exit(f"{path}: expected a record of `edgekit measure --to-accuracy`, or of this script")
    sys.stdout.write((brief(found.data) if short else rendered(table("", found))) + "\n")


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("runs", nargs="*", metavar="RUNS", help="folder of runs, or file of one")
    arguments.add_argument("--show", metavar="FILE", help="make nothing; print the table of a record")
    arguments.add("of --show, a column for each method", brief=False)
    arguments.add_argument("--rates", metavar="RECORD|FIGURES", help="images/s without a line")
    arguments.add("accuracies, in percent", to="75,80")
    arguments.add("as of `edgekit measure`", links="0.1mbit,1mbit,10mbit")
    arguments.add("those of the runs in order, separated by ; (default: all)", methods=None)
    arguments.add_argument("--seed", type=int, help="runs of this seed alone")
    arguments.add(out=None)
    options = arguments.parse_args()
    if options.show:
        show(options.show, options.brief)
        return
    if not (options.runs and options.rates and options.out):
        arguments.error("RUNS, --rates and --out, or --show")
    links, wanted = split_links(options.links), accuracies(options.to)
    check_computable(links)
    named = chosen(runs(options.runs), options.methods, options.seed)
    first = next(iter(named.values()))[1]
    plan, rates = first["plan"], rates_of(options.rates, first)
    trainings, codecs, images_per_s = [], {}, {}
    for name, (method, run) in named.items():
        spent = seconds_per_image(rates_of(options.rates, run), options.rates, method.name + besides(run), method)
        images_per_s[name] = 1 / spent["train"]
        codecs[name] = {
            "method": method.text, "codec": method.codec, "config": method_of(run).config, "gradient": method.gradient,
            "formula_bytes_up_per_image": run["formula_bytes_up"], "bundle": None,
        }  # fmt: skip
        rows = [{**each, "seconds": {part: each["images"] * s for part, s in spent.items()}} for each in epochs(run)]
        trainings.append({
            "codec": name, "link": None, "seed": run["plan"]["seed"], "epochs": rows, "collapsed": None,
            "others_cpu": None, "command": run["command"],
        })  # fmt: skip
    setting = {
        "model": plan["model"], "cut": plan["cut"] or MODELS[plan["model"]].cut, "feature": first["feature"],
        "dataset": first["dataset"], "limit": first["epochs"][0]["images"], "epochs": plan["epochs"],
        "evaluate_every": plan["every"], "batch": plan["batch"], "in_flight": 1, "optimizer": "sgd", "lr": plan["lr"],
        "momentum": 0.9, "weight_decay": plan["weight_decay"], "schedule": "cosine",
        "augment": AUGMENT if plan["augment"] else None, "mixed": plan["mixed"],
    }  # fmt: skip
    rated = rates.data if rates else {}
    made = to_accuracy_record.record(
        setting, to_accuracy_record.COMPUTED, wanted, codecs, links, trainings,
        (rated.get("machine") or {}).get("device"), ["python", *sys.argv],
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )  # fmt: skip
    made["rates"] = {"images_per_s": images_per_s, **{name: rated.get(name) for name in ("command", "time")}}
    record.write(made, options.out)
    sys.stderr.write(f"next: edgekit report {options.out}\n")


if __name__ == "__main__":
    main()
