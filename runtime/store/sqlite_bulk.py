"""The statements of `queries.sql`, and one statement for many rows.

A statement a row costs several microseconds; a statement for many rows costs
that once.  Only some numbers of rows have a statement, so each text is prepared
once and stays in the connection's statement cache.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

from apsw import Cursor

Row = tuple[Any, ...]

SIZES: Final = (
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 128, 256,
)  # fmt: skip
"""Rows in one statement; times the widest table's columns well below SQLite's 32,766.

Up to 63 rows take two statements at most. Of the larger ones there are few: to prepare one
costs as much as to run it (3 us a row), and who comes first waits for it.
"""


def _load() -> dict[str, str]:
    text = Path(__file__).with_name("queries.sql").read_text()
    _, *found = re.split(r"^-- (part|name): (.+)\n", text, flags=re.MULTILINE)
    parts: dict[str, str] = {}
    queries: dict[str, str] = {}
    for what, name, body in zip(found[::3], found[1::3], found[2::3], strict=True):
        if what == "part":
            parts[f"{{{name}}}"] = body.rstrip()
            continue
        text = body.rstrip()
        for named, part in parts.items():
            text = text.replace(named, part)
        queries[name] = text
    return queries


QUERIES: Final = _load()


def rows(cursor: Cursor, name: str, *values: Any) -> list[Row]:
    """All that a query answers.

    Always all: a statement that is not stepped to its end keeps its snapshot,
    and with it checkpoints and even the closing of the file waiting.
    """
    return cursor.execute(QUERIES[name], values).fetchall()


def some(
    cursor: Cursor, text: str, values: Sequence[Any], size: Callable[[Row], int], room: int
) -> tuple[list[Row], int]:
    """The rows of a query up to the one that passes `room` bytes, and what is left of it.

    Less than nothing: there may be more rows.
    """
    found: list[Row] = []
    for row in cursor.execute(text, values):
        found.append(row)
        room -= size(row)
        if room < 0:
            cursor.execute("")  # ends the statement, and its snapshot with it
            break
    return found, room


def first(cursor: Cursor, name: str, *values: Any) -> Row | None:
    """The first row of a query, if any."""
    found = rows(cursor, name, *values)
    return found[0] if found else None


def number(cursor: Cursor, name: str, *values: Any) -> int | None:
    """The one value of a query."""
    found = first(cursor, name, *values)
    return None if found is None else found[0]


class Bulk:
    """A statement of `queries.sql` that takes any number of rows."""

    def __init__(self, name: str, columns: int) -> None:
        row = "(" + ", ".join("?" * columns) + ")"
        self._text = cache(lambda size: QUERIES[name].format(rows=", ".join([row] * size)))

    def run(self, cursor: Cursor, given: Sequence[Row]) -> None:
        """Execute for all rows, in their order."""
        for text, values in self._chunks(given):
            cursor.execute(text, values)

    def read(self, cursor: Cursor, given: Sequence[Row]) -> list[Row]:
        """What a query answers for all rows, in their order."""
        found: list[Row] = []
        for text, values in self._chunks(given):
            found += cursor.execute(text, values).fetchall()
        return found

    def some(
        self, cursor: Cursor, given: Sequence[Row], size: Callable[[Row], int], room: int
    ) -> tuple[list[Row], int]:
        """As `some`, for the rows in their order."""
        found: list[Row] = []
        for text, values in self._chunks(given):
            if room < 0:
                break
            more, room = some(cursor, text, values, size, room)
            found += more
        return found, room

    def _chunks(self, given: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
        at, end = 0, len(given)
        while at < end:
            size = SIZES[bisect(SIZES, end - at) - 1]
            yield self._text(size), list(chain.from_iterable(given[at : at + size]))
            at += size
