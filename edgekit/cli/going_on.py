"""What `edgekit serve --resume DIR` goes on with: the options of the run that DIR holds."""

import os
from typing import Any

from edgekit.cli import options
from edgekit.errors import UsageError

#: Options that may be others than before, because they do not change what the run comes to.
FREE = (
    "listen", "identity", "insecure", "metrics", "as_json", "torch_device", "server_threads", "checkpoint", "reconnect",
    "start_wait",
)  # fmt: skip
#: Options that say nothing of the run.
NOT_KEPT = ("resume", "overwrite", "out", "as_json")


def settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options of a run, as its checkpoints keep them."""
    kept = {name: value for name, value in given.items() if name not in NOT_KEPT}
    paths = {name: os.path.abspath(given[name]) for name in ("bundle", "identity") if given[name] is not None}
    return {**kept, **paths}


def options_of(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the run to go on with. UsageError where there is none, or one that was `given` is another now."""
    from edgekit.saves import Saves, found

    folder = given["resume"]
    if given["out"] is not None or given["overwrite"]:
        raise UsageError(f"--resume {folder}: the run goes on there: leave --out and --overwrite out")
    if not found(folder):
        raise UsageError(f"--resume {folder}: there is no run to go on with; `edgekit serve --out {folder}` begins one")
    saves = Saves(folder, "server")
    before = saves.read(saves.labels[-1])["settings"]
    for name, value in before.items():
        now = os.path.abspath(given[name]) if name == "bundle" and given[name] else given.get(name)
        if name not in FREE and options.was_given(name) and now != value:
            flag = "BUNDLE" if name == "bundle" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} {now}: the run in {folder} had {value}; leave it out, or begin another run")
    kept = {name: value for name, value in before.items() if not options.was_given(name) or name not in FREE}
    return {**given, **kept, "out": folder}
