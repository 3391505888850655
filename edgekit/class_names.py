"""The names of classes: what a list of them must be, wherever one comes from.

Labels are numbers, and a number means a class by its place in such a list. So two sides agree on what a label means
when their lists are the same.
"""

from typing import Any, Optional


def class_names_error(names: Any, count: int) -> Optional[str]:
    """Why `names` cannot name `count` classes, for an error's message; None when they can.

    Names are a list or tuple of `count` texts, printable, not empty, and all different.
    """
    if not isinstance(names, (list, tuple)):
        return "class names {!r:.100}: expected a list of texts".format(names)
    if len(names) != count:
        return "{} class names, expected {}".format(len(names), count)
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name or not name.isprintable():
            return "class name {!r:.100}: expected a printable text".format(name)
        if name in seen:
            return "class name {!r:.100} stands there twice, expected different ones".format(name)
        seen.add(name)
    return None
