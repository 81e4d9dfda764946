"""Copies: what a store that can copy itself while it works is asked, and answers.

Apart from `backup`, which makes a copy a backup, because whoever speaks of
copies over a wire needs no SQLite.
"""

from __future__ import annotations

from typing import Literal, Protocol

from runtime.store.records import Record

CopyState = Literal["copying", "done", "failed"]


class Copied(Record, frozen=True):
    """How far a copy is."""

    state: CopyState
    pages_copied: int
    pages: int
    """Of the whole database; it can grow meanwhile."""
    error: str = ""


class Copies(Protocol):
    """A store that can write a copy of itself while it works; the embedded one can."""

    async def backup(self, token: str, path: str, wait_s: float) -> Copied:
        """Copy everything to a new file at `path`; begins with the first call of a `token`.

        Answers when the copy has ended, at the latest after `wait_s`. A copy that
        nobody asks for is given up after half a minute, and its file removed.

        Args:
            token: names this copy, so that a call can be repeated.
            path: absolute, on the store's machine; must not exist.

        Raises:
            StoreError: another copy is under way.
        """
