"""The documentation names what the code has."""

import json
import re
from pathlib import Path

import pytest

from edgekit.export.gradient import GRADIENT_RULES
from edgekit.export.targets.check import ALWAYS, BOARD_RULES
from edgekit.launch.settings import Server, Training
from edgekit.launch.summary import summary
from tests.one_process import Done, run_together

DOCS = Path(__file__).parents[1] / "docs"


def test_export_page_names_every_operator_and_every_rule() -> None:
    text = (DOCS / "export.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[\w-]+", text))
    # In training graphs of convolutions and norms; the page speaks of the layers.
    missing = set(GRADIENT_RULES) - words
    assert not missing
    assert not (set(BOARD_RULES) | set(ALWAYS)) - words


def test_record_page_names_every_field_of_a_summary() -> None:
    text = (DOCS / "record.md").read_text(encoding="utf-8")
    done = {
        "event": "done", "device": "device-0", "accuracy": 90.0, "balanced_accuracy": 89.0, "train_accuracy": 95.0,
        "loss": 0.5, "test_loss": 0.6, "images": 100, "train_s": 10.0, "gradient_deviation": 0.25, "staleness": 0.0,
        "bytes_up": 1, "bytes_down": 2, "bytes": {}, "seconds": {}, "codebook": {}, "validation_accuracy": 1.0,
        "validation_loss": 1.0, "by_class": {"images": [4, 4], "correct": [2, 4]},
    }  # fmt: skip
    fields = {*summary({}, [done], {}, {}), *Training._fields, *Server._fields} - {"event", "gradient_codec"}
    words = set(re.findall(r"`([a-z_0-9]+)`", text))
    # Of "seconds" too, by their names.
    assert not (fields | set(summary({}, [done], {}, {})["seconds"])) - words


def test_measure_page_names_what_a_record_of_scaling_has() -> None:
    text = (DOCS / "measure.md").read_text(encoding="utf-8")
    schema = json.loads((DOCS / "scaling.schema.json").read_text(encoding="utf-8"))
    own = {"codec", "link", "mode", "devices", "repeat", "images", "seconds"}
    cell = set(schema["properties"]["cells"]["items"]["properties"]) - own
    assert not cell - set(re.findall(r"[\w]+", text))
    for what in schema["properties"]["results"]["items"]["properties"]["binds"]["enum"]:
        assert f"`{what}`:" in text, what


def test_record_page_names_what_a_record_of_a_time_to_an_accuracy_has() -> None:
    text = (DOCS / "record.md").read_text(encoding="utf-8")
    _, _, mine = text.partition("## The time to an accuracy")
    schema = json.loads((DOCS / "to-accuracy.schema.json").read_text(encoding="utf-8"))["properties"]
    training, result = (schema[name]["items"]["properties"] for name in ("trainings", "results"))
    epoch = training["epochs"]["items"]["properties"]
    fields = {*schema, *training, *result, *epoch, *epoch["seconds"]["properties"]}
    fields |= {*result["reached"]["items"]["properties"], *result["best"]["properties"]}
    assert not fields - {"format", "version", "codec", "seed"} - set(re.findall(r"\w+", mine))


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f"(docs/{page.name})" in readme, page.name


def anchors(page: Path) -> set[str]:
    """What a link into `page` may name: its headings, as GitHub makes anchors of them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_files_that_are_named_exist(page: Path) -> None:
    """NAME and MODEL are the reader's own."""
    folders = {path.name for path in DOCS.parent.iterdir() if path.is_dir()} - {"docs", "runs"}
    for path in set(re.findall(r"`([\w./*-]+/[\w./*-]*)`", page.read_text(encoding="utf-8"))):
        if path.split("/")[0] in folders:
            assert list(DOCS.parent.glob(re.sub("NAME|MODEL", "*", path))), path


def test_fleet_page_says_how_fast_as_the_record_does() -> None:
    results = json.loads((DOCS.parent / "bench/results/scaling.json").read_text(encoding="utf-8"))["results"]
    page = (DOCS / "fleet.md").read_text(encoding="utf-8")
    for devices in sorted({each["devices"] for each in results}):
        row = [str(devices)]
        for mode in ("sync", "async"):
            (found,) = (each for each in results if (each["mode"], each["devices"]) == (mode, devices))
            row += [f"{found['images_per_s']['median']:.0f}", f"{100 * found['busy']['server']:.0f} %"]
        assert f"| {' | '.join(row)} |" in page


#: Page, and a command that prints a table which stands there.
TABLES = [
    ("docs/compression.md", "bench/accuracy.py --show bench/results/accuracy.json"),
    (
        "docs/compression.md",
        "bench/calibration.py --show bench/results/calibration-vgg11_thin.json --accuracy bench/results/accuracy.json",
    ),
    ("docs/compression.md", "bench/accuracy.py --show bench/results/ordinary-10.json --brief"),
    ("docs/compression.md", "bench/coder.py --show bench/results/coder.json"),
    ("docs/compression.md", "bench/local_head.py --show bench/results/local_head.json"),
    ("docs/compression.md", "bench/gradient_kernels.py --show bench/results/gradient_kernels.json"),
    ("docs/compression.md", "bench/update_coder.py --show bench/results/update_coder.json"),
    ("docs/compression.md", "bench/update_codecs.py --show bench/results/update_codecs.json"),
    ("docs/compression.md", "bench/uplink.py --show bench/results/uplink.json"),
    ("docs/export.md", "bench/front_graphs.py --show bench/results/front_graphs.json"),
    ("docs/export.md", "bench/provider_training.py --show bench/results/provider-training.json"),
    ("docs/export.md", "bench/providers.py --show bench/results/providers.json"),
    ("docs/export.md", "bench/train_layers.py --show bench/results/train_layers.json"),
    ("docs/fleet.md", "bench/faults.py --show bench/results/faults.json"),
    ("docs/fleet.md", "bench/soak.py --show bench/results/soak.json"),
    ("docs/fleet.md", "bench/load.py --show bench/results/load.json"),
    ("docs/fleet.md", "bench/fleet.py --show bench/results/fleet.json"),
    ("docs/fleet.md", "bench/fleet.py --show bench/results/fleet-cifar10.json --curves"),
    ("docs/line.md", "bench/fuzz_inputs.py --show bench/results/fuzz.json"),
    ("docs/leak.md", "bench/leak.py --show bench/results/leak.json"),
    ("docs/scale.md", "bench/ranks.py --show bench/results/ranks.json"),
    *[
        ("docs/measure.md", f"bench/{script}.py --show bench/results/{script}{when}.json")
        for script in ("line", "server_step")
        for when in ("", "-before")
    ],
    ("docs/measure.md", "bench/computed_seconds.py --show bench/results/computed-seconds.json"),
    ("docs/measure.md", "bench/time_to_accuracy.py --show bench/results/to-accuracy-digits.json --brief"),
    ("docs/measure.md", "bench/link.py --show bench/results/link.json"),
    ("docs/measure.md", "bench/peer_steps.py --show bench/results/peer_steps.json"),
    ("README.md", "bench/accuracy.py --show bench/results/ordinary.json --brief"),
    (
        "docs/results.md",
        "-m edgekit report bench/results/thin-mobilenet_v1.json bench/results/measure-mobilenet_v1.json "
        "bench/results/measure-vgg11.json bench/results/in-flight-mobilenet_v1.json "
        "bench/results/thin-vgg11_thin.json bench/results/fast-mobilenet_v1.json --format md",
    ),
]


@pytest.fixture(scope="module")
def shown() -> dict[str, Done]:
    """How each command of TABLES ends."""
    commands = [command for _, command in TABLES]
    return dict(zip(commands, run_together([command.split() for command in commands], DOCS.parent), strict=True))


@pytest.mark.parametrize(("page", "command"), TABLES)
def test_tables_are_those_of_the_records(shown: dict[str, Done], page: str, command: str) -> None:
    done = shown[command]
    assert done.code == 0, done.err
    assert done.out.strip() and done.out.strip() in (DOCS.parent / page).read_text(encoding="utf-8")
