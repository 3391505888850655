"""The page in headless Chromium: light and dark, wide and narrow. Skipped where Debian's `chromium` is not there."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.report import page
from edgekit.report.build import build
from edgekit.report.records import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

WIDTHS = (1200, 400)
#: Debian's build takes the reader's theme from here.
THEMES = {"light": 1, "dark": 0}
#: What a reader would see, written into a copy of the page: it has no script of its own.
PROBE = """
<script>
const box = element => element.getBoundingClientRect();
const charts = [...document.querySelectorAll("figure svg")].map(svg => {
  const scale = box(svg).width / svg.viewBox.baseVal.width;
  const texts = [...svg.querySelectorAll("text")];
  return {
    title: svg.getAttribute("aria-label"),
    width: box(svg).width,
    smallest: Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize) * scale)),
    colours: [...new Set(texts.map(text => getComputedStyle(text).fill))],
    outside: texts.filter(text => box(text).left < box(svg).left - 3 || box(text).right > box(svg).right + 3)
      .map(text => text.textContent),
  };
});
const body = getComputedStyle(document.body);
const found = {
  width: innerWidth, page: document.documentElement.scrollWidth, background: body.backgroundColor, ink: body.color,
  sections: [...document.querySelectorAll("section h2")].map(head => head.textContent),
  rows: document.querySelectorAll("tbody tr").length, charts,
};
parent.postMessage(JSON.stringify(found), "*");
</script>
"""
#: Chromium's own window is never narrower than 500 pixels, a frame can be.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><pre id="probe"></pre>
<script>addEventListener("message", event => { document.getElementById("probe").textContent = event.data; });</script>
<iframe src="probed.html" style="border: 0; width: %dpx; height: 2400px"></iframe>
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs it on a file, in a theme and at a width; its standard output."""
    profile = tmp_path_factory.mktemp("profile")

    def run(path: Path, theme: str, width: int, *arguments: str) -> str:
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={THEMES[theme]}",
            f"--window-size={width},2400", *arguments, path.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def path(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render(build(load([files[0], *files[2:5], files[-1]]))), encoding="utf-8")
    return path


def luminance(colour: str) -> float:
    """Relative luminance (WCAG) of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_readable(chromium: Callable[..., str], path: Path, theme: str, width: int) -> None:
    probed = path.with_name("probed.html")
    probed.write_text(path.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    frame = path.with_name("frame.html")
    frame.write_text(FRAME % width, encoding="utf-8")
    dom = chromium(frame, theme, width + 200, "--virtual-time-budget=5000", "--dump-dom")
    found: dict[str, Any] = json.loads(re.findall(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)[0])
    assert found["width"] == width and found["page"] <= width, "the page scrolls sideways"
    assert found["sections"][0] == "Speed" and found["rows"] > 100
    assert contrast(found["background"], found["ink"]) > 10
    assert (luminance(found["background"]) > 0.5) == (theme == "light")
    for chart in found["charts"]:
        assert chart["width"] > 340, chart["title"]
        assert chart["smallest"] > 8, chart["title"]
        assert not chart["outside"], chart["title"]
        assert all(contrast(found["background"], colour) > 4.5 for colour in chart["colours"]), chart["title"]


def test_themes_look_different_and_nothing_is_blank(chromium: Callable[..., str], path: Path) -> None:
    corners = {}
    for theme, width in (("light", 1200), ("dark", 1200), ("dark", 400)):
        shot = path.with_name(f"{theme}-{width}.png")
        chromium(path, theme, width, f"--screenshot={shot}")
        with Image.open(shot) as image:
            assert image.size == (width, 2400)
            colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
            assert colours is not None and len(colours) > 200
            most, _ = max(colours)
            assert most < 0.9 * width * 2400
            corners[theme, width] = int(np.asarray(image.convert("L"))[2, 2])
    assert all(
        (tone > 200) == (theme == "light") and (tone < 50) == (theme == "dark") for (theme, _), tone in corners.items()
    )
