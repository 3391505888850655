"""Labels by name: those of a dataset become those that a bundle was exported with.

Each device numbers the classes of its own files, and another device's files may hold other classes. The bundle's list
of names is the same on all of them, so labels that cross the line are places in that list.
"""

import difflib
from typing import Sequence, Tuple

import numpy as np

from edgekit.data.base import Dataset
from edgekit.errors import DataError

#: Most names that an error lists.
_SHOWN = 10


def mapped(dataset: Dataset, names: Tuple[str, ...]) -> Dataset:
    """`dataset` with labels (int64) that index `names`, and `names` as its classes.

    `names` may hold classes that the dataset lacks. DataError when the dataset has a class that `names` lacks.
    """
    unknown = [name for name in dataset.classes if name not in names]
    if unknown:
        told = (
            "{}: {}: the bundle has no such class, but {}. Rename it (of an image folder: its folders in train and "
            "test) or leave it out, or export the bundle again from a dataset that has it"
        )
        wrong = ", ".join("class {!r}{}".format(name, _hint(name, names)) for name in unknown[:_SHOWN])
        wrong += _more(unknown)
        has = ", ".join(names[:_SHOWN]) + _more(names)
        raise DataError(told.format(dataset.name, wrong, has))
    places = {name: place for place, name in enumerate(names)}
    place_of = np.array([places[name] for name in dataset.classes], dtype=np.int64)
    return dataset._replace(
        train_labels=place_of[dataset.train_labels], test_labels=place_of[dataset.test_labels], classes=tuple(names)
    )


def _hint(name: str, names: Sequence[str]) -> str:
    """ " (did you mean cat?)" where some of `names` look like `name`, whatever their case."""
    if name.isdecimal():
        # Numbers that look alike are others: only 01 and 1 are the same.
        near = [known for known in names if known.isdecimal() and int(known) == int(name)]
        return " (did you mean {}?)".format(near[0]) if near else ""
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), sorted(by_lower), n=3, cutoff=0.5)
    return " (did you mean {}?)".format(" or ".join(by_lower[each] for each in near)) if near else ""


def _more(names: Sequence[str]) -> str:
    return " and {} more".format(len(names) - _SHOWN) if len(names) > _SHOWN else ""
