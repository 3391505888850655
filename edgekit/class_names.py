"""The names of classes: what a list of them must be, wherever one comes from.

Labels are numbers, and a number means a class by its place in such a list. So two sides agree on what a label means
when their lists are the same.
"""

import json
from typing import Any, Dict, Optional, Sequence, Tuple

from edgekit.errors import PayloadError

#: The name that weights' files have them by (`edgekit.tensorfile.metadata`).
_SAID = "classes"


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


def said_of(names: Sequence[str]) -> Dict[str, str]:
    """What a file of weights says of itself: the names of the classes that they tell apart; nothing of none."""
    return {_SAID: json.dumps(list(names))} if names else {}


def said_in(metadata: Dict[str, str]) -> Tuple[str, ...]:
    """The names that a file says by `said_of`; none where it does not. PayloadError for anything but names."""
    if _SAID not in metadata:
        return ()
    try:
        names = json.loads(metadata[_SAID])
    except (ValueError, RecursionError) as error:
        raise PayloadError("class names do not parse: {!r}".format(error), 8) from None
    wrong = class_names_error(names, len(names) if isinstance(names, list) else 0)
    if wrong:
        raise PayloadError(wrong, 8)
    return tuple(names)
