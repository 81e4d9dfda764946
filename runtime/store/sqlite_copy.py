"""A copy of the open database: SQLite's online backup, in steps between which the store works.

It goes through the store's one connection.  So what is written meanwhile is in
the copy too (SQLite repeats pages that were copied before), it never begins
anew, and it ends as the store is at its last step.  A commit waits for one step
at most.

The copy is not yet a backup: it has not been synced, nor looked at.  That is
`backup`'s business, in another process.

Source: sqlite.org/backup.html.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw
from apsw import Connection

from runtime.store.copies import Copied, CopyState

STEP_PAGES: Final = 64
"""Pages (4 KiB) copied at a time; about half a millisecond."""
ABANDONED_S: Final = 30.0
"""Nobody has asked for so long: the copy is given up and removed."""


class _AbandonedError(Exception):
    """Nobody waits for the copy any more."""


class Copy:
    """One copy: `run` it, and ask how far it is."""

    def __init__(self, token: str, path: Path) -> None:
        self.token = token
        self.path = path
        self._asked_s = time.monotonic()
        self._pages = 0
        self._left = 0
        self._state: CopyState = "copying"
        self._error = ""
        self._created = False
        """Whether the file at `path` is the copy's own."""

    def asked(self) -> Copied:
        """How far it is; whoever asks keeps it going."""
        self._asked_s = time.monotonic()
        return Copied(self._state, self._pages - self._left, self._pages, self._error)

    @property
    def ended(self) -> bool:
        return self._state != "copying"

    async def run(self, connection: Connection, settled: Callable[[], Awaitable[None]]) -> None:
        """Copy all of it; between two steps the loop has its turn, and may use the connection.

        Args:
            settled: waits until no transaction is open: what may be undone is not copied.
        """
        try:
            await settled()
            self._create()
            with closing(Connection(str(self.path))) as target:
                # what is half is thrown away anyway
                target.execute("PRAGMA journal_mode=off").fetchall()
                target.execute("PRAGMA synchronous=off").fetchall()
                with target.backup("main", connection, "main") as steps:
                    while not steps.step(STEP_PAGES):
                        self._left, self._pages = steps.remaining, steps.page_count
                        if time.monotonic() - self._asked_s > ABANDONED_S:
                            raise _AbandonedError
                        await asyncio.sleep(0)
                        await settled()
                    self._left, self._pages = steps.remaining, steps.page_count
        except (apsw.Error, OSError, _AbandonedError) as error:
            self._error = str(error) or type(error).__name__
            self._give_up()
        except BaseException:
            self._give_up()
            raise
        else:
            self._state = "done"

    def _create(self) -> None:
        """A new file that only its owner can read: it holds what the store holds."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(self.path, flags, 0o600))
        self._created = True

    def _give_up(self) -> None:
        self._state = "failed"
        if self._created:
            self.path.unlink(missing_ok=True)
