"""Keeper: a device's front half in the folder that it is to be kept in, all through its training."""

from typing import Any, Callable, Dict

from edgekit.errors import UsageError
from edgekit.kept import Kept
from edgekit.runtime.front import Front
from edgekit.runtime.session import Options


class Keeper:
    """Writes the weights and tables of `front` to the folder of `options`; without one it does nothing.

    UsageError where that holds an earlier front half, cannot be written to, or has no room.
    """

    def __init__(self, front: Front, options: Options, on_event: Callable[[Dict[str, Any]], None]) -> None:
        self._front = front
        self._options = options
        self._on_event = on_event
        n_bytes = sum(array.nbytes for array in front.state.values())
        self._kept = None if options.out is None else Kept(options.out, n_bytes, options.overwrite, options.resume)

    def now(self, epoch: int, best: bool) -> None:
        """Keeps the front half as it is now, after `epoch` epochs; as that of the best test too, where it is that.

        A full disk ends no training: "not_kept" tells of it. UsageError only after the last epoch.
        """
        if self._kept is None:
            return
        try:
            self._kept.write({"front": self._front.state, "tables": self._front.tables}, best)
        except UsageError as error:
            if epoch == self._options.epochs:
                raise
            self._on_event({"event": "not_kept", "device": self._options.name, "epoch": epoch, "reason": str(error)})

    def if_due(self, epoch: int) -> None:
        """The same in the middle of an epoch, `epoch` of them being over, where the last time is long ago."""
        if self._kept is not None and self._kept.due:
            self.now(epoch, best=False)
