"""Pairs: the two halves as they were at the last test or lately, and at the best test, kept in a folder."""

from collections.abc import Sequence

from edgekit.class_names import said_of
from edgekit.codecs.base import Arrays
from edgekit.kept import Kept
from edgekit.server.rounds import Rounds
from edgekit.server.setup import Setup


class Pairs:
    """Writes ``back.safetensors``, and where front halves are in step ``front`` and ``tables`` too.

    The back half says the names of the classes that it tells apart, where `classes` has them. `n_bytes`, `overwrite`
    and `resume` as of `edgekit.kept.Kept`; UsageError too.
    """

    def __init__(
        self,
        folder: str,
        classes: Sequence[str] = (),
        n_bytes: int = 0,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self._kept = Kept(folder, n_bytes, overwrite, resume)
        self._said = {"back": said_of(classes)}

    @property
    def due(self) -> bool:
        """Whether the last pair is so old that it should be kept anew, test or not."""
        return self._kept.due

    def keep_now(self, setup: Setup, rounds: Rounds, best: bool) -> None:
        """Keeps the pair as it is now: the front half too, where the devices' are in step."""
        front = {**setup.front, **rounds.weights} if rounds.policy.every else None
        self.keep(setup.back.state_dict(), front, rounds.tables, best)

    def keep(self, back: Arrays, front: Arrays | None, tables: Arrays, best: bool) -> None:
        """Keeps a pair as the last one, and as the best one if it is that; all of it or nothing, then UsageError."""
        files = {"back": back, **({} if front is None else {"front": front, "tables": tables})}
        self._kept.write(files, best, self._said)
