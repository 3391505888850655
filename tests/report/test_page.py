"""The page: one file without references, valid, escaped, the same each time; Markdown, JSON and PNG beside it."""

import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

import edgekit
from edgekit.cli.report import report as command
from edgekit.report import figure, markdown, page
from edgekit.report.build import build
from edgekit.report.content import Report
from edgekit.report.palette import LIGHT
from edgekit.report.records import Measure, Records, load, parse

HOSTILE = "</title><script>alert(1)</script>\"'>&lt; $x^2$ {{ 7*7 }} \x00\ud800 `|"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(html.parser.HTMLParser):
    """Every tag and attribute, and that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def made(files: list[str]) -> Report:
    return build(load(files))


@pytest.fixture(scope="module")
def text(made: Report) -> str:
    return page.render(made)


def test_every_section_is_there(made: Report, text: str) -> None:
    ids = [
        "speed", "bytes", "time", "in-flight", "scaling", "to-accuracy", "accuracy", "convergence", "loss",
        "devices", "codebooks", "federated", "machine",
    ]  # fmt: skip
    assert [section.name for section in made.sections] == ids and made.missing == []
    assert re.findall(r'<section id="([^"]*)"', text) == ids


def test_nothing_is_fetched(text: str) -> None:
    shown = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "image"} & set(shown.tags)
    for name, value in shown.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href", "srcset", "action"):
            assert value.startswith("#"), value
        assert not re.search(r"https?:|//|url\((?!#)|@import", value), (name, value)
    assert "http" not in text and "@import" not in text and "url(#" in text


def test_every_chart_is_xml_and_ids_are_unique(made: Report, text: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == sum(len(section.charts) for section in made.sections) > 10
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.attrib["role"] == "img" and root.attrib["aria-label"] and "width" not in root.attrib
        assert root.findall(".//text") and not root.findall(".//style")
        own = {each.attrib["id"] for each in root.iter() if "id" in each.attrib}
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', chart))
        assert used and used <= own
    ids = [value for name, value in Page(text).attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 100


def test_colours_are_the_readers(text: str) -> None:
    body = text[text.index("<body>") :]
    assert not re.findall(r"#[0-9a-f]{6}", body, re.IGNORECASE)
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", text))
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    for name in used:
        assert f"{name}: " in light and f"{name}: " in dark, name
    assert {f"--series-{i}" for i in range(6)} <= used and all(colour in light for colour in LIGHT)


def test_axes_say_what_they_show(made: Report, text: str) -> None:
    for section in made.sections:
        for chart in section.charts:
            assert f">{chart.x_label}</text>" in text
            assert re.search(r"Mbit/s|MB|images/s|, s$|%|bytes|epoch|rounds|batches|devices", chart.x_label)
    for label in ("images/s trained", "test accuracy, %", "perplexity, codewords", "distortion, share of variance"):
        assert f">{label}</text>" in text


def test_the_same_records_give_the_same_bytes(files: list[str], text: str, tmp_path: Path) -> None:
    """In another process too, where sets have another order."""
    out = tmp_path / "report.html"
    arguments = [sys.executable, "-W", "error", "-m", "edgekit", "report", *files, "-o", str(out)]
    environment = dict(os.environ, PYTHONHASHSEED="7", PYTHONPATH=str(Path(edgekit.__file__).parents[1]))
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8") == text


def test_pictures_are_the_same_each_time(files: list[str]) -> None:
    assert figure.png(build(load(files[:1]), ["speed"])) == figure.png(build(load(files[:1]), ["speed"]))


def hostile(value: Any) -> Any:
    """`value` with something nasty at the end of every name."""
    if isinstance(value, dict):
        keys = {"sgq", "uq", "1mbit", "loopback"}
        return {key + HOSTILE if key in keys else key: hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return value + HOSTILE if isinstance(value, str) and value not in ("edgekit-measure",) else value


def test_hostile_names_stay_text(measure: dict[str, Any]) -> None:
    measure["cells"] = [row for row in measure["cells"] if row["codec"] in ("sgq", "uq")]
    measure["results"] = [row for row in measure["results"] if row["codec"] in ("sgq", "uq")]
    measure["codecs"] = {key: measure["codecs"][key] for key in ("sgq", "uq")}
    measure["links"] = {key: measure["links"][key] for key in ("1mbit", "loopback")}
    measure["results"] = [row for row in measure["results"] if row["link"] in measure["links"]]
    measure["cells"] = [row for row in measure["cells"] if row["link"] in measure["links"]]
    measure["encoding"] = []
    record = parse(json.dumps(hostile(measure)).encode(), "r" + HOSTILE.replace("\x00\ud800", ""))
    assert isinstance(record, Measure)
    made = build(Records([record], [], [], [], []))
    shown = Page(page.render(made))
    assert "script" not in shown.tags
    assert "<script>alert(1)</script>" in shown.words and "{{ 7*7 }}" in shown.words and "$x^2$" in shown.words
    quoted = markdown.render(made)
    assert "<script" not in re.sub(r"`[^`\n]*`", "", re.sub(r"``+ .*? ``+", "", quoted))
    assert figure.png(made).startswith(b"\x89PNG")


def test_markdown(made: Report) -> None:
    text = markdown.render(made)
    assert text.startswith("> **Warning:** mobilenet\\_v1, cifar10, cpu: the clocks")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == sum(len(section.tables) for section in made.sections)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert (
        "| 1mbit | sgq | " in text and "| 9.22x |" in text and "- accuracy of FP32: `python bench/accuracy.py" in text
    )


def test_json_has_the_numbers(made: Report) -> None:
    value = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert value["format"] == "edgekit-report" and value["version"] == 1
    speed = value["sections"][0]
    assert speed["charts"][0]["kind"] == "plot" and speed["tables"][0]["columns"][0]["name"] == "link"
    assert set(speed["tables"][1]["rows"][0][1]) == {"median", "low", "high"}


def test_picture_holds_the_main_charts(made: Report) -> None:
    charts = figure.main_charts(made)
    assert len(charts) == figure.MOST and charts[0].title.startswith("Images/s trained over the link's rate")
    data = figure.png(made)
    assert data.startswith(b"\x89PNG") and len(data) > 50_000


def test_command_writes_each_format(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, files[:1])
    assert done.exit_code == 0 and Path("report.html").stat().st_size > 100_000
    assert "report.html: speed, bytes per image" in done.output and "left out, no record of it: accu" in done.output
    assert "warning: mobilenet_v1, cifar10, cpu: the clocks" in done.stderr
    done = CliRunner().invoke(command, [files[0], "--format", "json"])
    assert json.loads(done.stdout)["sections"][0]["name"] == "speed"
    done = CliRunner().invoke(command, [files[0], "--format", "md", "--only", "bytes"])
    assert done.stdout.startswith("> **Warning") and done.stdout.count("## ") == 1
    assert CliRunner().invoke(command, [files[2], "--only", "bytes", "-o", "a.png"]).exit_code == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert "cannot be written" in str(CliRunner().invoke(command, [files[0], "-o", "no/x.html"]).exception)
