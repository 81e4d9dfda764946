"""Messages in SQLite: rows to write for a group of commits, and how they are read.

Which messages are pending is known from the roster; this module knows whether
an id was ever received, keeps the rows of a group until `flush`, and makes
messages of rows.  What `settle` is for, the schema tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Cursor
from typing import Final, Literal

from runtime.store.contract import Retry, Send, StoredMessage
from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, first, number, rows

RECEIVED: Final = Bulk("message_known", 3)
NEW: Final = Bulk("message_new", 7)
FINISHED: Final = Bulk("pending_drop", 1)
OUTCOME: Final = Bulk("outcome_new", 5)
RETRY: Final = Bulk("retry_set", 4)
BY_SEQ: Final = Bulk("message_by_seq", 1)


SETTLE_EVERY: Final = 4_096
"""Messages that are settled together; the walk along those that are not is bounded by it."""

Status = Literal["processed", "dead"]


class Inbox:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self.received: set[tuple[str, str]] = set()
        """(recipient, message id), of those that were loaded, which were ever received."""
        self._settled = int(number(cursor, "settled") or 0)
        """Seq up to which `delivered` and `pending` are complete."""
        self._new: list[Row] = []
        self._finished: list[Row] = []
        self._outcomes: list[Row] = []
        self._retries: list[Row] = []

    def load(self, wanted: list[tuple[str, int, str]]) -> None:
        """Find which of these were ever received (message id, recipient's row, its address)."""
        self.received.update(RECEIVED.read(self._cursor, wanted))

    def add(self, send: Send, seq: int, recipient: int, now_ms: int) -> None:
        self.received.add((send.recipient, send.message_id))
        self._new.append(
            (seq, recipient, send.message_id, send.sender, send.body, now_ms, send.reply_to)
        )

    def finish(
        self, seq: int, status: Status, now_ms: int, reply: bytes | None, error: str | None
    ) -> None:
        if seq <= self._settled:
            self._finished.append((seq,))
        self._outcomes.append((seq, status, now_ms, reply, error))

    def retry(self, seq: int, retry: Retry) -> None:
        self._retries.append((seq, 1, retry.not_before_ms, retry.error))

    def flush(self) -> None:
        """Write what changed and forget what was loaded."""
        cursor = self._cursor
        NEW.run(cursor, self._new)
        FINISHED.run(cursor, self._finished)
        OUTCOME.run(cursor, self._outcomes)
        RETRY.run(cursor, self._retries)
        self.received.clear()
        self._new, self._finished, self._outcomes, self._retries = [], [], [], []

    def settle(self, head_seq: int) -> None:
        """Bring `delivered` and `pending` up to date once enough has gathered."""
        if head_seq - self._settled < SETTLE_EVERY:
            return
        for name in ("settle_delivered", "settle_pending"):
            self._cursor.execute(QUERIES[name], (self._settled,))
        self._cursor.execute(QUERIES["settle"], (str(head_seq),))
        self._settled = head_seq

    # reading

    def by_seq(self, seqs: Sequence[int]) -> list[StoredMessage]:
        """The messages of these seqs, in their order."""
        found = BY_SEQ.read(self._cursor, [(seq,) for seq in seqs])
        return [StoredMessage(*row) for row in found]

    def history(self, recipient: int, after: int, limit: int) -> list[StoredMessage]:
        found = rows(self._cursor, "message_page", recipient, after, limit)
        if len(found) < limit:
            after = max(after, self._settled)
            left = limit - len(found)
            found += rows(self._cursor, "message_page_recent", recipient, after, left)
        return [StoredMessage(*row) for row in found]

    def one(self, recipient: int, message_id: str) -> StoredMessage | None:
        row = first(self._cursor, "message_one", message_id, recipient)
        return None if row is None else StoredMessage(*row)

    def all_pending(self) -> list[Row]:
        """(seq, recipient's row, message id) of everything that is pending, in order."""
        recent = rows(self._cursor, "pending_recent", self._settled)
        return rows(self._cursor, "pending_settled") + recent
