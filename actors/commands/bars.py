"""A bar for work whose size is known, on a terminal only; elsewhere one line when it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from actors.commands.output import Output

COLUMNS: Final = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TimeRemainingColumn(),
)
Advance = Callable[[int, int], None]
"""Called with what is done and what there is, in bytes."""


@contextmanager
def bar(out: Output, label: str) -> Iterator[Advance]:
    """Show how far something is while the block runs."""
    if not out.terminal:
        out.progress(label)
        yield lambda done, size: None
        return
    with Progress(*COLUMNS, console=out.console, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, size: progress.update(task, completed=done, total=size or None)
