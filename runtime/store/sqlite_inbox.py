"""Messages in SQLite: rows to write for a group of commits, and how they are read.

Which messages are pending is known from the roster; this module knows whether
an id was ever received, keeps the rows of a group until `flush`, and makes
messages of rows.  What `settle` is for, the schema tells.

A message is mostly asked for once, right after it was written, and by its seq.
So the latest that are pending are kept as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Literal

from apsw import Cursor

from runtime.store.contract import ANSWER_BYTES_MAX, Retry, Send, StoredMessage
from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, first, number, rows, some
from runtime.store.sqlite_meta import Meta

RECEIVED: Final = Bulk("message_known", 3)
NEW: Final = Bulk("message_new", 7)
FINISHED: Final = Bulk("pending_drop", 1)
OUTCOME: Final = Bulk("outcome_new", 5)
RETRY: Final = Bulk("retry_set", 4)
BY_SEQ: Final = Bulk("message_by_seq", 1)
RECIPIENT: Final = Bulk("message_recipient", 1)
DROPS: Final = [
    Bulk(name, 1) for name in ("pending_drop", "outcome_drop", "retry_drop", "message_drop")
]

KEPT_BYTES: Final = 16 << 20
"""Of pending messages that are kept; beyond it the older half goes."""
KEPT_EACH_BYTES: Final = 512
"""Of a message that is kept, without its body."""
SETTLE_EVERY: Final = 4_096
"""Messages that are settled together; the walk along those that are not is bounded by it."""

Status = Literal["processed", "dead"]


class Inbox:
    def __init__(self, cursor: Cursor, meta: Meta) -> None:
        self._cursor = cursor
        self._meta = meta
        self.received: set[tuple[str, str]] = set()
        """(recipient, message id), of those that were loaded, which are kept."""
        self.last_seq = max(number(cursor, "message_last") or 0, meta.number("head_seq"))
        """The greatest seq that was ever given."""
        self._settled = meta.number("settled")
        """Seq up to which `delivered` and `pending` are complete."""
        self._new: list[Row] = []
        self._finished: list[Row] = []
        self._outcomes: list[Row] = []
        self._retries: list[Row] = []
        self._kept: dict[int, StoredMessage] = {}
        """Seq -> pending message without a failed attempt, in order."""
        self._kept_bytes = 0

    def load(self, wanted: list[tuple[str, int, str]]) -> None:
        """Find which of these were ever received (message id, recipient's row, its address)."""
        self.received.update(RECEIVED.read(self._cursor, wanted))

    def add(self, send: Send, seq: int, recipient: int, now_ms: int) -> None:
        self.last_seq = seq
        self.received.add((send.recipient, send.message_id))
        self._new.append(
            (seq, recipient, send.message_id, send.sender, send.body, now_ms, send.reply_to)
        )

    def keep(self, send: Send, seq: int, now_ms: int) -> None:
        """A message that was added is pending and will be asked for."""
        self._kept[seq] = StoredMessage(
            seq, send.message_id, send.sender, send.recipient, send.body, now_ms, send.reply_to
        )
        self._kept_bytes += KEPT_EACH_BYTES + len(send.body)
        if self._kept_bytes > KEPT_BYTES:
            for older in list(self._kept)[: len(self._kept) // 2]:
                self._forget(older)

    def _forget(self, seq: int) -> None:
        message = self._kept.pop(seq, None)
        if message is not None:
            self._kept_bytes -= KEPT_EACH_BYTES + len(message.body)

    def finish(
        self, seq: int, status: Status, now_ms: int, reply: bytes | None, error: str | None
    ) -> None:
        self._forget(seq)
        if seq <= self._settled:
            self._finished.append((seq,))
        self._outcomes.append((seq, status, now_ms, reply, error))

    def retry(self, seq: int, retry: Retry) -> None:
        self._forget(seq)
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

    def settle(self, head_seq: int, at_once: bool = False) -> None:
        """Bring `delivered` and `pending` up to date once enough has gathered, or at once."""
        if head_seq - self._settled < SETTLE_EVERY and not at_once:
            return
        for name in ("settle_delivered", "settle_pending"):
            self._cursor.execute(QUERIES[name], (self._settled,))
        self._meta.set("settled", head_seq)
        self._settled = head_seq

    def drop(self, seqs: Sequence[int]) -> None:
        """Remove messages and what became of them; their seqs are never given again."""
        for seq in seqs:
            self._forget(seq)
        self._meta.set("head_seq", self.last_seq)
        given = [(seq,) for seq in seqs]
        self._cursor.executemany(QUERIES["delivered_drop"], RECIPIENT.read(self._cursor, given))
        for table in DROPS:
            table.run(self._cursor, given)

    # reading

    def by_seq(self, seqs: Sequence[int]) -> list[StoredMessage]:
        """The pending messages of these seqs, in their order, which is that of their seqs.

        Not much more of them than fits an answer is read.
        """
        kept = self._kept
        found = [kept[seq] for seq in seqs if seq in kept]
        if len(found) < len(seqs):
            missing = [(seq,) for seq in seqs if seq not in kept]
            read, room = BY_SEQ.some(self._cursor, missing, _size, ANSWER_BYTES_MAX)
            if room < 0:
                found = [message for message in found if message.seq < read[-1][0]]
            found += [StoredMessage(*row) for row in read]
            found.sort(key=attrgetter("seq"))
        return found

    def history(self, recipient: int, after: int, limit: int) -> list[StoredMessage]:
        text, asked = QUERIES["message_page"], (recipient, after, limit)
        found, room = some(self._cursor, text, asked, _size, ANSWER_BYTES_MAX)
        if len(found) < limit and room >= 0:
            asked = (recipient, max(after, self._settled), limit - len(found))
            text = QUERIES["message_page_recent"]
            found += some(self._cursor, text, asked, _size, room)[0]
        return [StoredMessage(*row) for row in found]

    def one(self, recipient: int, message_id: str) -> StoredMessage | None:
        row = first(self._cursor, "message_one", message_id, recipient)
        return None if row is None else StoredMessage(*row)

    def all_pending(self) -> list[Row]:
        """(seq, recipient's row, message id) of everything that is pending, in order."""
        recent = rows(self._cursor, "pending_recent", self._settled)
        return rows(self._cursor, "pending_settled") + recent


def _size(row: Row) -> int:
    """As `rules.message_bytes`, of a message's row."""
    return len(row[4]) + len(row[11] or b"") + len(row[12] or "")
