"""A spool: lines put in any order, read in the order of their time, from the disk.

What is gathered page by page from many places can't be sorted in memory, so it
goes through a temporary SQLite file that nobody else sees and that is gone when
the spool is closed.  Lines of one time keep the order they were put in.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

BATCH: Final = 500
"""Lines in memory."""


class Spool:
    def __init__(self) -> None:
        # one thread at a time uses it, though not always the same one
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA synchronous=off")
        self._file.execute("CREATE TABLE line (at TEXT, number INTEGER PRIMARY KEY, text TEXT)")
        self._file.execute("BEGIN")
        self._gathered: list[tuple[str, str]] = []
        self.count = 0

    async def put(self, line: Mapping[str, Any]) -> None:
        """Keep a line; `at` says when."""
        self._gathered.append((line["at"], json.dumps(line, separators=(",", ":"))))
        self.count += 1
        if len(self._gathered) >= BATCH:
            await self._write()

    async def lines(self) -> AsyncIterator[list[str]]:
        """All of them in order, some at a time."""
        await self._write()
        cursor = await asyncio.to_thread(
            self._file.execute, "SELECT text FROM line ORDER BY at, number"
        )
        while found := await asyncio.to_thread(cursor.fetchmany, BATCH):
            yield [text for (text,) in found]

    async def _write(self) -> None:
        gathered, self._gathered = self._gathered, []
        await asyncio.to_thread(_insert, self._file, gathered)

    def close(self) -> None:
        """Remove it. Idempotent."""
        self._file.close()


def _insert(file: sqlite3.Connection, gathered: Sequence[tuple[str, str]]) -> None:
    file.executemany("INSERT INTO line (at, text) VALUES (?, ?)", gathered)
