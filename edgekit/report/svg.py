"""A chart as SVG inside a page: its text is text, in the page's fonts and colours, and its ids are unique."""

import io
import re
import warnings
from xml.etree import ElementTree

from edgekit.report.content import Chart
from edgekit.report.draw import STYLE, WIDTH, draw, height
from edgekit.report.palette import variables

#: Elements of matplotlib's SVG that a page must not have.
LEFT_OUT = {"metadata", "style"}
#: Attribute that holds an id -> what stands before the id.
BEFORE_ID = {"id": "", "href": "#", "clip-path": "url(#"}
COLOUR = re.compile(r"#[0-9a-f]{6}\b")


def svg(chart: Chart, name: str) -> str:
    """The <svg> element of `chart`; equal charts and names give equal bytes. `name` is the prefix of its ids."""
    import matplotlib
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # matplotlib's font only serves to estimate widths: the page's own has the letters that it lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height(chart)), layout="constrained")
        draw(figure.add_subplot(), chart)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())
    _clean(root, name, variables())
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": chart.title}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _clean(element: ElementTree.Element, name: str, names: dict[str, str]) -> None:
    """Changes `element` and all below: names without namespaces, ids of this chart, colours of the page."""
    element.tag = _local(element.tag)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    for key, start in BEFORE_ID.items():
        if key in attributes:
            attributes[key] = attributes[key].replace(start, f"{start}{name}-", 1)
    if "style" in attributes:
        style = COLOUR.sub(lambda found: names.get(found[0], found[0]), attributes["style"])
        attributes["style"] = re.sub(r"font-family: [^;]*(; )?", "", style)
    element.attrib = attributes
    for child in list(element):
        if _local(child.tag) in LEFT_OUT:
            element.remove(child)
        else:
            _clean(child, name, names)
    if not (element.text or "").strip():
        element.text = None
    element.tail = "\n"


def _local(name: str) -> str:
    return name.rpartition("}")[2]
