"""How a followed thing looks: a live view, plain lines, or JSON, by where it goes.

    on a terminal   log lines above; status, bar, step and cost redrawn below
    elsewhere       a line whenever something changed
    with --json     one object a line: {"type": "update" | "log" | "end", ...}

Each has `show(update)` and is a context manager that leaves the terminal as it
was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from actors.commands.following import Picture, Update
from actors.commands.output import Output, status_text, visible
from actors.commands.words import clock_time, cost, reason, remedy

REFRESH_PER_S: Final = 8
BAR_WIDTH: Final = 32


class View(Protocol):
    """Shows updates as they come."""

    def show(self, update: Update) -> None: ...


def view(out: Output) -> AbstractContextManager[View]:
    """The view that fits where the output goes."""
    if out.as_json:
        return nullcontext(JsonView(out.result))
    if out.terminal and not out.console.is_dumb_terminal:
        return TerminalView(out)
    return nullcontext(PlainView(out.say))


class JsonView:
    """One JSON object a line."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write

    def show(self, update: Update) -> None:
        for line in update.lines:
            self._write({"type": "log", "time": line.time, "message": line.message})
        picture = update.picture
        if picture.outcome is None:
            self._write({"type": "update", **summary(picture)})
        else:
            end = {**summary(picture), "outcome": picture.outcome, "record": dict(picture.record)}
            self._write({"type": "end", **end})


class PlainView:
    """A line for each change of status, step, and log."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: tuple[Any, ...] = ()

    def show(self, update: Update) -> None:
        picture = update.picture
        for line in update.lines:
            self._say(f"{clock_time(line.time)}  {visible(line.message)}")
        shown = (picture.status, picture.reason, picture.percent, picture.step)
        if shown == self._last:
            return
        if (picture.status, picture.reason) != self._last[:2]:
            self._say(f"-> {headline(picture)}")
            if hint := remedy(picture.reason or "", picture.job_id):
                self._say(f"   {hint}")
        if picture.step and shown[2:] != self._last[2:]:
            self._say(f"   {picture.percent:3d}%  {visible(picture.step)}  {_cost(picture)}")
        self._last = shown


class TerminalView:
    """Log lines that scroll, above a status that is redrawn in place."""

    def __init__(self, out: Output) -> None:
        self._console = out.console
        self._live = Live(
            console=out.console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._spinner = Spinner("dots", style="blue")

    def __enter__(self) -> TerminalView:
        self._live.__enter__()
        return self

    def __exit__(self, *exit: Any) -> None:
        self._live.__exit__(*exit)
        sys.stdout.flush()

    def show(self, update: Update) -> None:
        for line in update.lines:
            stamp = Text(clock_time(line.time), style="dim")
            self._console.print(stamp.append(f"  {visible(line.message)}", style="default"))
        self._live.update(self._render(update.picture))

    def _render(self, picture: Picture) -> RenderableType:
        self._spinner.text = Text.assemble(
            status_text(picture.status), f"  {visible(picture.title)}", ("  " + picture.id, "dim")
        )
        parts: list[RenderableType] = [self._spinner]
        if picture.job_id:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                ProgressBar(total=100, completed=picture.percent, width=BAR_WIDTH),
                f"{picture.percent:3d}%",
                Text(visible(picture.step or ""), no_wrap=True, overflow="ellipsis"),
                Text(_cost(picture), style="dim"),
            )
            parts.append(bar)
        if picture.reason:
            parts.append(Text(f"{reason(picture.reason)}", style="yellow"))
            if hint := remedy(picture.reason, picture.job_id):
                parts.append(Text(hint, style="dim"))
        return Group(*parts)


def headline(picture: Picture) -> str:
    """`issue_01J is queued: it waits for a model`."""
    because = f": {visible(reason(picture.reason))}" if picture.reason else ""
    return f"{picture.id} is {picture.status}{because}"


def summary(picture: Picture) -> dict[str, Any]:
    """A picture as JSON."""
    return {
        "id": picture.id,
        "status": picture.status,
        "reason": picture.reason,
        "jobId": picture.job_id,
        "progress": picture.percent,
        "currentStep": picture.step,
        "costUsd": picture.cost_usd,
        "tokens": picture.tokens,
        "reviewId": picture.review_id,
    }


def _cost(picture: Picture) -> str:
    return cost({"costUsd": picture.cost_usd, "tokens": picture.tokens})
