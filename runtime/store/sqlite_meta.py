"""The table `meta`: what the other tables can't be asked once their rows are gone.

Invariant: what is here is what the file says; a transaction that fails takes
the whole book with it.
"""

from __future__ import annotations

from typing import Final

from apsw import Cursor

from runtime.store.sqlite_bulk import Bulk, rows

SET: Final = Bulk("meta_set", 2)


class Meta:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._values: dict[str, str] = dict(rows(cursor, "meta_all"))

    def number(self, name: str) -> int:
        """A number; 0 when there is none yet."""
        return int(self._values.get(name, 0))

    def text(self, name: str) -> str:
        """A word; empty when there is none yet."""
        return self._values.get(name, "")

    def set(self, name: str, value: int | str) -> None:
        """Write at once, within the transaction."""
        if self._values.get(name) != str(value):
            self._values[name] = str(value)
            SET.run(self._cursor, [(name, str(value))])
