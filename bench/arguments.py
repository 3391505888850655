"""The command line of a bench."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import record

#: How options are given that have no default to tell by, or a name of their own for their value.
KNOWN: dict[str, dict[str, Any]] = {
    "cut": {"metavar": "LAYER", "help": "default: the model's own"},
    "data": {"metavar": "DIR", "help": "where the dataset's files are"},
    "limit": {"type": int, "metavar": "N", "help": "training images, balanced over the classes"},
    "noise_filling": {"metavar": "SHARE", "help": "as of `edgekit train`"},
    **{name: {"metavar": "FILE"} for name in ("out", "json", "plot")},
}


class Arguments(argparse.ArgumentParser):
    """A parser of arguments called `names`, which describes itself by a script's docstring, `about`."""

    def __init__(self, about: str | None, *names: str) -> None:
        text = (about or "").replace("\b\n", "")
        super().__init__(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        for name in names:
            self.add_argument(name)

    def add(self, text: str = "", **defaults: Any) -> None:
        """An option for each of `defaults`, of its type; a flag where that is False. `text` says what it is for."""
        for name, default in defaults.items():
            if default is False:
                given: dict[str, Any] = {"action": "store_true"}
            else:
                given = {"default": default, "type": str if default is None else type(default)}
            given |= KNOWN.get(name, {})
            if text:
                given["help"] = text + (" (default %(default)s)" if default else "")
            self.add_argument(f"--{name.replace('_', '-')}", **given)

    def parse_or_show(self, table: Callable[[Any], str]) -> argparse.Namespace:
        """The options, --out and --show among them. With --show it prints the `table` of a record, and that is all."""
        self.add(out=None)
        self.add("measure nothing; print the table of what --out wrote", show=None)
        options = self.parse_args()
        if options.show:
            sys.stdout.write(table(record.read(options.show)) + "\n")
            self.exit()
        return options
