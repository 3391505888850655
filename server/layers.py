"""What --update-layers says: the layers of a front half that every round carries."""

from collections.abc import Sequence

from edgekit.bundle import HEAD
from edgekit.codecs.base import Arrays
from edgekit.errors import UnknownName, UsageError

#: "last:2": so many layers before the cut.
LAST = "last"


def update_layers(text: str | None, front: Arrays, learned: Sequence[str]) -> list[str]:
    """The modules of `front` that `text` means, "last:K" or names with commas between; all of them: [].

    A layer is a module with a weight of two dimensions or more, and the norms behind it; `learned` are the names of
    the weights that learn, in the order of computation. UsageError for fewer than K layers, UnknownName for a name.
    """
    if text is None:
        return []
    layers = _layers(front, learned)
    kind, _, number = text.partition(":")
    if kind == LAST and number.isdecimal():
        if not 1 <= int(number) <= len(layers):
            names = ", ".join(layer[0] for layer in layers)
            raise UsageError(f"--update-layers {text}: expected 1 to {len(layers)}, the layers that learn are {names}")
        return [module for layer in layers[-int(number) :] for module in layer]
    known = {part for name in learned for part in (name, *_modules(name))}
    for name in text.split(","):
        if name not in known:
            listed = ", ".join(module for layer in layers for module in layer)
            raise UnknownName("layer of --update-layers", name, known, f"take last:K, or of these: {listed}")
    return text.split(",")


def _layers(front: Arrays, learned: Sequence[str]) -> list[list[str]]:
    """The modules of every layer that learns, in the order of computation; the local head is no layer."""
    layers: list[list[str]] = []
    for name in learned:
        module = name.rpartition(".")[0]
        if name.startswith(HEAD) or any(module in layer for layer in layers):
            continue
        if front[name].ndim > 1 or not layers:
            layers.append([])
        layers[-1].append(module)
    return layers


def _modules(name: str) -> list[str]:
    """The modules that the weight `name` is in: "a.b" and "a" for "a.b.weight"."""
    parts = name.split(".")[:-1]
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
