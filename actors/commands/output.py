"""What a command writes: results on standard output, remarks on standard error.

With `--json` standard output holds JSON and nothing else; without it, text, in
colour only on a terminal.  Text that came from an agent, an issue or a
repository passes `visible` first: what a person approves must be what is there,
so nothing in it may move the cursor, hide letters or change their order.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from time import monotonic
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from actors.commands.failures import CommandError

STATUS_STYLES: Final = {
    "pending": "yellow",
    "queued": "cyan",
    "processing": "blue",
    "running": "blue",
    "waiting": "yellow",
    "paused": "yellow",
    "active": "green",
    "executing": "blue",
    "draining": "yellow",
    "error": "red",
    "review": "magenta",
    "approved": "green",
    "completed": "green",
    "passed": "green",
    "rejected": "red",
    "failed": "red",
    "cancelled": "red",
    "needs_human": "magenta",
}
_DIFF_STYLES: Final = (
    (("diff --git", "index ", "--- ", "+++ ", "new file", "deleted file", "rename "), "bold"),
    (("@@",), "cyan"),
    (("+",), "green"),
    (("-",), "red"),
)
SILENT_S: Final = 2.0
EVERY_S: Final = 5.0
_PLAIN_SPACES: Final = frozenset(" \n\t")


class Output:
    """Standard output and error of one command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty() and not as_json
        self.console = _console(sys.stdout)
        self._errors = _console(sys.stderr)

    def result(self, value: Any) -> None:
        """The command's one JSON document, or one line of several."""
        with _written():
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()

    def say(self, text: str | Text = "") -> None:
        """A line of the answer; nothing with `--json`."""
        if not self.as_json:
            self._print(self.console, text)

    def remark(self, text: str) -> None:
        """A line beside the answer: on standard error, so that pipes stay clean."""
        self._print(self._errors, text)

    def progress(self, text: str) -> None:
        """A line about work that takes seconds; never among JSON."""
        (self.remark if self.as_json else self.say)(text)

    def pairs(self, pairs: Iterable[tuple[str, str | Text | None]]) -> None:
        """Names and values below each other; pairs without a value are left out."""
        shown = [(name, value) for name, value in pairs if value not in (None, "")]
        width = max((cell_len(name) for name, _ in shown), default=0)
        for name, value in shown:
            line = Text(f"{name.ljust(width)}  ", style="dim")
            line.append_text(value if isinstance(value, Text) else Text(visible(value or "")))
            self.say(line)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        empty: str,
        *,
        whole: bool = False,
    ) -> None:
        """Rows under headings; on a terminal the last column is cut to its width.

        Args:
            whole: it is an id, to be copied, or a time: not cut.
        """
        if not rows:
            self.say(empty)
            return
        cells = [[visible(cell).replace("\n", " ") for cell in row] for row in rows]
        widths = [
            max(cell_len(row[index]) for row in [list(columns), *cells])
            for index in range(len(columns))
        ]
        if self.terminal and not whole:
            before = sum(widths[:-1]) + 2 * (len(widths) - 1)
            widths[-1] = min(widths[-1], max(12, self.console.width - before))
        self.say(_row(columns, widths, "bold"))
        for row in cells:
            self.say(_row(row, widths))

    def patch(self, patch: bytes) -> None:
        """A patch: to be read on a terminal, byte for byte elsewhere."""
        if self.terminal:
            self.diff(patch)
        else:
            with _written():
                sys.stdout.buffer.write(patch)
                sys.stdout.buffer.flush()

    def diff(self, patch: bytes) -> None:
        """A patch to be read: coloured by line, nothing in it hidden."""
        for line in patch_text(patch).split("\n"):
            self.say(Text(visible(line), style=_diff_style(line)))

    def _print(self, console: Console, text: str | Text) -> None:
        with _written():
            console.print(text, soft_wrap=True, end="\n")
            console.file.flush()


class Slowness:
    """Says that something takes its time: nothing for two seconds, then a line each five."""

    def __init__(self, tell: Callable[[str], None], now_s: Callable[[], float] = monotonic) -> None:
        self._tell = tell
        self._now_s = now_s
        self._due_s = now_s() + SILENT_S

    def say(self, text: str) -> None:
        """How far it is; a remark, when one is due."""
        if self._now_s() >= self._due_s:
            self._due_s = self._now_s() + EVERY_S
            self._tell(text)


@contextmanager
def _written() -> Iterator[None]:
    """What goes out is taken, unless its reader has gone, which is no failure of ours."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"The answer can't be written: {error.strerror}.") from error


def _console(stream: Any) -> Console:
    if isinstance(stream, TextIOWrapper):  # a terminal of another encoding shows what it can
        stream.reconfigure(errors="backslashreplace")
    # Nothing of what is printed is markup, and only a terminal gets colours.
    return Console(
        file=stream, force_terminal=stream.isatty(), highlight=False, markup=False, emoji=False
    )


def patch_text(patch: bytes) -> str:
    """A patch as text; bytes that are not UTF-8 stay told apart."""
    return patch.decode("utf-8", "surrogateescape").removesuffix("\n")


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(visible(status), style=STATUS_STYLES.get(status, ""))


def visible(text: str) -> str:
    """The text with everything a terminal would obey, hide or reorder spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    # Cc: escape sequences; Cf: bidi controls, zero-width; Cs: half a pair; Zl, Zp: line breaks.
    if character in _PLAIN_SPACES:
        return character
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co"):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _row(cells: Sequence[str], widths: Sequence[int], style: str = "") -> Text:
    line = Text(style=style)
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        last = index == len(widths) - 1
        fitted = cell if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"
        text = fitted if last else set_cell_size(fitted, width) + "  "
        line.append(text, style=STATUS_STYLES.get(cell) or None)
    return line


def _diff_style(line: str) -> str:
    return next((style for heads, style in _DIFF_STYLES if line.startswith(heads)), "")
