"""What several commands show on the screen: how far they are, and tables."""

import contextlib
from collections.abc import Callable, Iterator
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column


def wide(least: int, file: IO[str] | None = None) -> Console:
    """A console at least as wide as whole rows of a table, even if the terminal has to wrap them."""
    return Console(file=file, width=max(Console(file=file).width, least), highlight=False)


def numbers(*heads: str) -> list[Column]:
    """Columns of numbers, aligned right and never wrapped."""
    return [Column(head, justify="right", no_wrap=True) for head in heads]


@contextlib.contextmanager
def counting(task: str) -> Iterator[Callable[[int, int, str], None]]:
    """Shows a bar on standard error; what it gives is called with the number done, the total, and what is next."""
    screen = Console(stderr=True)
    columns = TextColumn(f"{task}{{task.description}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("")
        yield lambda done, total, name: progress.update(bar, description=name, completed=done, total=total)
