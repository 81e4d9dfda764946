"""The store's one thread: reads between transactions, writes in groups.

All that gathered while the last transaction was out goes into the next one:
one transaction at a time, one fsync for all of them (natural group commit).
An answer is handed out after COMMIT, never before; so is what those find
who wait for what the transaction has changed (`sqlite_calls`).

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
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

import apsw

from runtime.clock import Clock
from runtime.errors import StoreError, StoreFullError, StoreUnavailableError
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.sqlite_book import Book
from runtime.store.sqlite_calls import Call, Parked, taken
from runtime.store.sqlite_copy import Copy
from runtime.store.sqlite_file import StoreFile

logger = logging.getLogger(__name__)

GROUP_COMMITS_MAX: Final = 4_096
"""Commits in one transaction; what is left goes into the next."""
CALLS_WAITING_MAX: Final = 100_000
"""Calls that may wait for the thread; one more is turned away."""
CHECKPOINT_EVERY_S: Final = 1.0
"""With durability `process kill`: what a power loss can cost."""

IDLE_S: Final = 0.02
"""Nobody has come for so long: what was put off is done in the meantime. Between two calls of
somebody who is at work it would make the second wait."""

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
Deliver = Callable[[list[Call], "int | None", "int | None"], None]


class Worker:
    """Owns the thread. `deliver(calls, next due, next event)` runs on the loop, after them."""

    def __init__(
        self,
        open_store: Callable[[], StoreFile],
        clock: Clock,
        on_fatal: Callable[[], None],
    ) -> None:
        self._open_store = open_store
        self._clock = clock
        self._on_fatal = on_fatal
        self._queue: SimpleQueue[list[Call] | None] = SimpleQueue()
        self._gathered: list[Call] = []
        self._calls = 0
        self._broken = False
        self._failed = False
        """The last transaction was not to be: nothing is tried that nobody has asked for."""
        self._waiting: deque[Call] = deque()
        """Taken from the queue, not yet served."""
        self._parked = Parked()
        self._copy: Copy | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="troupe-store", daemon=True)
        self.file: StoreFile
        self.book: Book

    async def start(self, deliver: Deliver) -> None:
        """Open the file in the thread; raises what opening raised."""
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        await self._opened

    async def call(self, run: Callable[[Book], Any], reads: bool = False) -> Any:
        """Run a function of the book, inside a transaction unless it only reads."""
        return await self._submit(Call(self._loop.create_future(), run, reads=reads))

    async def commit(self, commits: Sequence[Commit]) -> Answers:
        answers: Answers = await self._submit(Call(self._loop.create_future(), None, commits))
        return answers

    async def watch(
        self, keys: tuple[Hashable, ...], look: Callable[[Book], tuple[Any, bool]], wait_s: float
    ) -> Any:
        """Look until there is something or `wait_s` has passed; what the last look found.

        Args:
            look: what there is, and whether it is worth answering at once; looks again
                when a transaction has rung one of the keys.

        Raises:
            StoreUnavailableError: the store was closed meanwhile.
        """
        last = wait_s <= 0
        call = Call(self._loop.create_future(), look, reads=True, keys=keys, last=last)
        self._submit(call)
        end = None if last else self._loop.call_later(wait_s, self._end, call)
        try:
            return await call.future
        finally:
            if end is not None:
                end.cancel()
            if call.future.cancelled():
                self._end(call)

    def _end(self, call: Call) -> None:
        if not self._ending:
            self._give(Call(self._loop.create_future(), None, reads=True, ends=call))

    @property
    def busy(self) -> int:
        """Calls that the thread has to answer before anything else happens."""
        return self._calls - len(self._parked)

    def _submit(self, call: Call) -> asyncio.Future[Any]:
        if self.busy >= CALLS_WAITING_MAX:
            raise StoreUnavailableError(f"{self.busy} calls are waiting")
        self._give(call)
        return call.future

    def _give(self, call: Call) -> None:
        self._gathered.append(call)
        self._calls += 1
        if self.busy == 1:
            self._hand_over()  # the thread is idle: why wait for company
        elif len(self._gathered) == 1:
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._queue.put(self._gathered)
        self._gathered = []

    def _hand_back(
        self, calls: list[Call], next_due_ms: int | None, next_event_ms: int | None
    ) -> None:
        self._calls -= len(calls)
        for call in calls:
            if call.future.done():
                continue
            if call.error is None:
                call.future.set_result(call.result)
            else:
                call.future.set_exception(call.error)
        self._deliver(calls, next_due_ms, next_event_ms)

    async def close(self) -> None:
        """Finish what is under way, close the file, end the thread."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # in the thread

    def _run(self) -> None:
        try:
            self.file = self._open_store()
            self.book = self._read_book()
        except BaseException as error:  # whoever opens the store hears what it was
            told = StoreError(str(error)) if isinstance(error, apsw.Error) else error
            self._loop.call_soon_threadsafe(self._opened.set_exception, told)
            return
        self._loop.call_soon_threadsafe(self._opened.set_result, None)
        try:
            self._serve()
        except BaseException as error:  # a defect here would leave every caller waiting
            self._fatal(error)
        finally:
            self.book.close()
            self.file.close()

    @property
    def _checkpoint_every_s(self) -> float | None:
        return CHECKPOINT_EVERY_S if self.file.durability == "process kill" else None

    def _serve(self) -> None:
        self._checkpoint_at = time.monotonic() + CHECKPOINT_EVERY_S
        while self._turn(wait=True):
            if self._copy is not None:
                self._copy.run(self.file.connection, self._between_steps)
                self._copy = None

    def copy(self, copy: Copy) -> None:
        """Begin a copy after this turn; to be called in the thread."""
        self._copy = copy

    def _between_steps(self) -> None:
        if not self._turn(wait=False):
            raise OSError("the store closes")

    def _turn(self, wait: bool) -> bool:
        """Serve what has come, one group of it; False: the store is to end."""
        idle = wait and self.book.is_behind and not self._failed
        self._take(wait, IDLE_S if idle else self._checkpoint_every_s)
        if self._ending:
            self._serve_calls([*self._waiting])
            self._waiting.clear()
            self._fail(self._parked.clear(), StoreUnavailableError("closed"))
            return False
        if idle and not self._waiting:
            self._guarded(self._catch_up)
        self._serve_calls(taken(self._waiting, GROUP_COMMITS_MAX))
        self.book.agents.trim()
        if self.file.durability == "process kill" and time.monotonic() >= self._checkpoint_at:
            self._guarded(lambda: self.file.connection.execute("PRAGMA wal_checkpoint").fetchall())
            self._checkpoint_at = time.monotonic() + CHECKPOINT_EVERY_S
        return True

    def _catch_up(self) -> None:
        """Do a piece of what is better done while nobody waits."""
        self._failed = True  # unless it is told otherwise below
        execute = self.file.connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            self.book.catch_up()
            execute("COMMIT")
        except apsw.Error:
            self._undo()
            raise
        self._failed = False

    def _take(self, wait: bool, wait_s: float | None) -> None:
        """Take everything that has come; wait for it, so long, if there is nothing to do."""
        while not self._ending and ((wait and not self._waiting) or not self._queue.empty()):
            try:
                calls = self._queue.get(timeout=wait_s)
            except Empty:
                return
            if calls is None:
                self._ending = True
            else:
                self._waiting.extend(calls)

    def _serve_calls(self, calls: list[Call]) -> None:
        """Reads first: they need not wait for the fsync."""
        if reads := [call for call in calls if call.reads]:
            self._post(self._look(reads))
        writes = [call for call in calls if not call.reads]
        if writes:
            self._write(writes)

    def _look(self, calls: Iterable[Call]) -> list[Call]:
        """Let calls read; those of them that are answered. The others wait, or go on waiting."""
        answered = []
        for call in calls:
            if call.ends is not None:
                call.ends.last = True
                answered += [call, *self._look([call.ends] if call.ends in self._parked else [])]
                continue
            self._read(call)
            if call.keys and call.error is None:
                call.result, enough = call.result
                if not (enough or call.last):
                    self._parked.add(call)
                    continue
            self._parked.remove(call)
            answered.append(call)
        return answered

    def _read(self, call: Call) -> None:
        assert call.run is not None
        try:
            self._check_broken()
            call.result = call.run(self.book)
        except StoreUnavailableError as error:
            call.error = error
        except Exception as error:  # a caller's mistake is the caller's to hear
            if _is_fatal(error):
                self._fatal(error)
            call.error = StoreError(f"{type(error).__name__}: {error}")

    def _write(self, calls: list[Call]) -> None:
        try:
            self._check_broken()
            self._transaction(calls)
        except StoreUnavailableError as error:
            self._fail(calls, error)
        except Exception as error:  # whatever it was, the file and memory are as before it
            if _is_fatal(error):
                self._fatal(error)
                self._fail(calls, StoreUnavailableError(str(error)))
                return
            self._undo()
            if _code(error) == apsw.SQLITE_FULL:
                logger.error("the disk is full", extra={"action": "store.full"})
                self._fail(calls, StoreFullError(str(self.file.path)))
            else:
                self._one_by_one(calls, error)

    def _transaction(self, calls: list[Call]) -> None:
        execute = self.file.connection.execute
        execute("BEGIN IMMEDIATE")
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
        rings, self.book.rings = self.book.rings, set()
        self._post(calls + self._look(self._parked.rung(rings)))

    def _one_by_one(self, calls: list[Call], error: Exception) -> None:
        if len(calls) > 1:
            for call in calls:
                self._write([call])
            return
        logger.error("a call can't be written: %s", error, extra={"action": "store.unwritable"})
        self._fail(calls, StoreError(f"{type(error).__name__}: {error}"))

    def _undo(self) -> None:
        def undo() -> None:
            if self.file.connection.in_transaction:
                self.file.connection.execute("ROLLBACK")
            self.book = self._read_book()

        self._guarded(undo)

    def _read_book(self) -> Book:
        file = self.file
        return Book(file.connection, self._clock, file.incarnation, self._parked.is_awaited)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except apsw.Error as error:
            if _is_fatal(error):
                self._fatal(error)

    def _fatal(self, error: BaseException) -> None:
        logger.critical("the store failed: %s", error, extra={"action": "store.failed"})
        self._broken = True
        self._on_fatal()

    def _check_broken(self) -> None:
        if self._broken:
            raise StoreUnavailableError("the store has failed")

    def _fail(self, calls: list[Call], error: Exception) -> None:
        for call in calls:
            call.error = error
        self._post(calls)

    def _post(self, calls: list[Call]) -> None:
        if not calls:
            return
        moments = (self.book.agents.next_due_ms, self.book.next_event_ms())
        with suppress(RuntimeError):  # the loop ended without `close`: nobody waits any more
            self._loop.call_soon_threadsafe(self._hand_back, calls, *moments)


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 when the error is not SQLite's own."""
    return int(getattr(error, "result", 0)) if isinstance(error, apsw.Error) else 0


def _is_fatal(error: Exception) -> bool:
    """Whether the file, and not one statement or value, is what failed."""
    return _code(error) not in _HARMLESS
