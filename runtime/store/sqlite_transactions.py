"""Group commit: what has gathered since the last transaction goes into the next, on the event loop.

One transaction at a time, one fsync for all of it: while it is under way what
comes waits in the sockets, and is decoded and served together afterwards (natural
group commit).  Reads happen between transactions.  There is no thread
beside the loop: to hand work over and back cost more than it brought (decision 16).

An answer is handed out after COMMIT, never before, and who waits for what the
transaction has changed looks after COMMIT.

When a transaction fails, the file is as before it and so is memory: the book
is thrown away and read again.  A full disk refuses the group and the store
goes on.  A call that can't be written (a value SQLite does not take) fails
alone: its group is repeated call by call.  Anything else (I/O, fsync, a
corrupt file) is fatal, because after a failed fsync nothing in memory can be
trusted: `on_fatal` must end the process.

Source: Rebello et al., "Can applications recover from fsync failures?" (2020).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import apsw

from runtime.clock import Clock
from runtime.errors import StoreError, StoreFullError, StoreUnavailableError
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.parking import Parking
from runtime.store.sqlite_book import Book
from runtime.store.sqlite_file import StoreFile

T = TypeVar("T")

logger = logging.getLogger(__name__)

GROUP_COMMITS_MAX: Final = 4_096
"""Commits in one transaction; what is left goes into the next."""
CALLS_WAITING_MAX: Final = 100_000
"""Calls that may wait for a transaction; one more is turned away."""
CHECKPOINT_EVERY_S: Final = 1.0
"""With durability `process kill`: what a power loss can cost."""

IDLE_S: Final = 0.02
"""Nothing has been written for so long: what was put off is done in the meantime. Between two
calls of somebody who is at work it would make the second wait."""

_HARMLESS: Final = {
    0,
    apsw.SQLITE_FULL,
    apsw.SQLITE_TOOBIG,
    apsw.SQLITE_CONSTRAINT,
    apsw.SQLITE_MISMATCH,
    apsw.SQLITE_RANGE,
    apsw.SQLITE_ERROR,
}
"""Errors that concern one statement, not the file."""

Answers = list[Committed | Refused]


class _Call:
    """A part of a transaction: commits, or a function of the book."""

    __slots__ = ("commits", "future", "result", "run")

    def __init__(
        self,
        future: asyncio.Future[Any],
        run: Callable[[Book], Any] | None,
        commits: Sequence[Commit] = (),
    ) -> None:
        self.future = future
        self.run = run
        self.commits = commits
        self.result: Any = None

    def succeed(self) -> None:
        if not self.future.done():
            self.future.set_result(self.result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Transactions:
    """Owns the open file and its book."""

    def __init__(
        self,
        file: StoreFile,
        clock: Clock,
        parking: Parking,
        on_fatal: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        """
        Args:
            parking: who waits; rung for what a transaction has changed.
            on_fatal: the file has failed; the process must end.
            on_end: a transaction is over, whether it was to be or not.

        Raises:
            StoreError: the file can't be read.
        """
        self.file = file
        self._clock = clock
        self._parking = parking
        self._on_fatal = on_fatal
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Call] = deque()
        self._broken = False
        self._failed = False
        """The last transaction was not to be: nothing is tried that nobody has asked for."""
        self._ended_s = 0.0
        """When the last transaction was over, by the loop's clock."""
        self._idle: asyncio.TimerHandle | None = None
        self._checkpoint: asyncio.TimerHandle | None = None
        self.accepted = 0
        """Commits that are written."""
        self.refused: Counter[str] = Counter()
        """Commits that are not, by reason."""
        try:
            self.book = self._read_book()
        except apsw.Error as error:
            raise StoreError(str(error)) from error

    def read(self, look: Callable[[Book], T]) -> T:
        """What a function of the book answers; it must not write.

        Raises:
            StoreUnavailableError: the store has failed.
            StoreError: it can't be answered.
        """
        self._check_broken()
        try:
            return look(self.book)
        except StoreUnavailableError:
            raise
        except Exception as error:  # a caller's mistake is the caller's to hear
            if _is_fatal(error):
                self._fatal(error)
            raise StoreError(f"{type(error).__name__}: {error}") from error

    async def write(self, run: Callable[[Book], T]) -> T:
        """Run a function of the book in a transaction; its answer once that is durable.

        Raises:
            StoreUnavailableError: the store has failed, or too many calls wait.
            StoreFullError: the disk is full; nothing was written.
            StoreError: it can't be written; nothing was.
        """
        result: T = await self._submit(_Call(self._loop.create_future(), run))
        return result

    async def commit(self, commits: Sequence[Commit]) -> Answers:
        """Judge and write commits in one transaction; raises as `write` does."""
        answers: Answers = await self._submit(_Call(self._loop.create_future(), None, commits))
        return answers

    def close(self) -> None:
        """Write what was asked for, and close the file."""
        while self._waiting:
            self._serve()
        for timer in (self._idle, self._checkpoint):
            if timer is not None:
                timer.cancel()
        self.book.close()
        self.file.close()

    def _submit(self, call: _Call) -> asyncio.Future[Any]:
        if len(self._waiting) >= CALLS_WAITING_MAX:
            raise StoreUnavailableError(f"{len(self._waiting)} calls are waiting")
        self._waiting.append(call)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._serve)
        return call.future

    def _serve(self) -> None:
        """One group of what has come, then whatever has gathered in the sockets."""
        calls = self._taken()
        if self._waiting:
            self._loop.call_soon(self._serve)
        if not calls:
            return
        try:
            self._write(calls)
            self.book.agents.trim()
        except BaseException as error:  # a defect here would leave every caller waiting
            self._fatal(error)
            self._fail(calls, StoreUnavailableError(str(error)))
        self._ended_s = self._loop.time()
        self._put_off()
        self._on_end()

    def _taken(self) -> list[_Call]:
        """Those of one transaction, in their order: of at most so many commits, or one."""
        calls: list[_Call] = []
        commits = 0
        while self._waiting and commits < GROUP_COMMITS_MAX:
            calls.append(self._waiting.popleft())
            commits += len(calls[-1].commits)
        return calls

    def _write(self, calls: list[_Call]) -> None:
        try:
            self._check_broken()
            self._transaction(calls)
        except StoreUnavailableError as error:
            self._fail(calls, error)
        except Exception as error:  # whatever it was, the file and memory are as before it
            if _is_fatal(error):
                self._fatal(error)
            else:
                self._undo()
            if self._broken:
                self._fail(calls, StoreUnavailableError(str(error)))
            elif _code(error) == apsw.SQLITE_FULL:
                logger.error("the disk is full", extra={"action": "store.full"})
                self._fail(calls, StoreFullError(str(self.file.path)))
            else:
                self._one_by_one(calls, error)

    def _transaction(self, calls: list[_Call]) -> None:
        execute = self.file.connection.execute
        execute("BEGIN IMMEDIATE")
        answers: Answers = []
        commits = [call for call in calls if call.run is None]
        if commits:
            answers = self.book.commit([one for call in commits for one in call.commits])
            at = 0
            for call in commits:
                call.result = answers[at : at + len(call.commits)]
                at += len(call.commits)
            self.book.flush()
        for call in calls:
            if call.run is not None:
                call.result = call.run(self.book)
                self.book.flush()
        execute("COMMIT")
        self._failed = False
        self._count(answers)
        rings, self.book.rings = self.book.rings, {}
        for key in rings:
            self._parking.ring(key)
        for call in calls:
            call.succeed()

    def _count(self, answers: Answers) -> None:
        refused = [answer.reason for answer in answers if isinstance(answer, Refused)]
        self.accepted += len(answers) - len(refused)
        if refused:
            self.refused.update(refused)

    def _one_by_one(self, calls: list[_Call], error: Exception) -> None:
        if len(calls) > 1:
            for call in calls:
                self._write([call])
            return
        logger.error("a call can't be written: %s", error, extra={"action": "store.unwritable"})
        self._fail(calls, StoreError(f"{type(error).__name__}: {error}"))

    def _fail(self, calls: list[_Call], error: Exception) -> None:
        for call in calls:
            call.fail(error)

    def _undo(self) -> None:
        self._failed = True

        def undo() -> None:
            if self.file.connection.in_transaction:
                self.file.connection.execute("ROLLBACK")
            self.book = self._read_book()

        self._guarded(undo)

    def _read_book(self) -> Book:
        file = self.file
        return Book(file.connection, self._clock, file.incarnation, self._parking.is_awaited)

    # what nobody waits for

    def _put_off(self) -> None:
        """See to it that what this transaction has left undone is done later."""
        if self._idle is None and self.book.is_behind and not self._failed:
            self._idle = self._loop.call_later(IDLE_S, self._when_idle)
        if self._checkpoint is None and self.file.durability == "process kill":
            self._checkpoint = self._loop.call_later(CHECKPOINT_EVERY_S, self._write_back)

    def _when_idle(self) -> None:
        """Do a piece of what was put off, unless somebody is at work."""
        self._idle = None
        left_s = self._ended_s + IDLE_S - self._loop.time()
        if left_s > 0:
            self._idle = self._loop.call_later(left_s, self._when_idle)
            return
        self._guarded(self._catch_up)
        self._put_off()

    def _catch_up(self) -> None:
        execute = self.file.connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            self.book.catch_up()
            execute("COMMIT")
        except apsw.Error:
            self._undo()
            raise

    def _write_back(self) -> None:
        """With durability `process kill`: sync what was written since the last time."""
        self._checkpoint = None
        self._guarded(lambda: self.file.connection.execute("PRAGMA wal_checkpoint").fetchall())

    # failures

    def _guarded(self, work: Callable[[], object]) -> None:
        """Do what no caller waits for; a defect in it is as fatal as a file that fails."""
        try:
            work()
        except Exception as error:  # whatever it was: nobody waits to be told
            if not isinstance(error, apsw.Error) or _is_fatal(error):
                self._fatal(error)

    def _fatal(self, error: BaseException) -> None:
        logger.critical("the store failed: %s", error, extra={"action": "store.failed"})
        self._broken = True
        self._on_fatal()

    def _check_broken(self) -> None:
        if self._broken:
            raise StoreUnavailableError("the store has failed")


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 when the error is not SQLite's own."""
    return int(getattr(error, "result", 0)) if isinstance(error, apsw.Error) else 0


def _is_fatal(error: Exception) -> bool:
    """Whether the file, and not one statement or value, is what failed."""
    return _code(error) not in _HARMLESS
