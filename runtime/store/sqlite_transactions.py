"""Group commit: what has gathered since the last transaction goes into the next, on the event loop.

One transaction at a time, one fsync for all of it: while it is under way what
comes waits in the sockets, and is decoded and served together afterwards (natural
group commit).  Reads happen between transactions.  There is no thread
beside the loop: to hand work over and back cost more than it brought (decision 16).

An answer is handed out after COMMIT, never before, and who waits for what the
transaction has changed looks after COMMIT.  The one exception lives in this very
process, the insider (`sqlite_inside`, decision 18): what a transaction has for it
is told at once; the transaction is held open for a few turns of the loop, and what
it commits meanwhile is a part of it.  Whoever else reads waits until that is
settled.  A transaction begins when the insider has seen to the last one, or has a
call in it.

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
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, TypeVar

import apsw

from runtime.clock import Clock
from runtime.errors import StoreError, StoreFullError, StoreUnavailableError, UndoneError
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.parking import Parking
from runtime.store.rules import check_call, check_room
from runtime.store.sqlite_book import Book
from runtime.store.sqlite_calls import Call, Insider, Patience, Tally, fail
from runtime.store.sqlite_file import StoreFile, code_of, is_fatal
from runtime.store.sqlite_idle import LOG_PAGES, Idle

T = TypeVar("T")

logger = logging.getLogger(__name__)

GROUP_COMMITS_MAX: Final = 4_096
"""Commits in one transaction; what is left goes into the next."""
CALLS_WAITING_MAX: Final = 100_000
"""Calls that may wait for a transaction; one more is turned away."""

Answers = list[Committed | Refused]


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
        self._waiting: deque[Call] = deque()
        self._insider: Insider | None = None
        self._patience = Patience(self._loop)
        self._held: list[Call] = []
        """Whose transaction is open."""
        self._joining: list[Call] = []
        """What the insider has made of it."""
        self._settled = asyncio.Event()
        self._settled.set()
        self._idle = Idle(
            lambda: bool(self._held),
            lambda: bool(self._guarded(self._piece)),
            lambda: self._guarded(file.move_log),
        )
        self._broken = False
        self.tally = Tally()
        try:
            self.book = self._read_book()
        except apsw.Error as error:
            raise StoreError(str(error)) from error

    def let_in(self, insider: Insider) -> None:
        """From now on this one hears of transactions while they are open, and nobody else."""
        if self._insider is not None:
            self._insider.undo()
        self._insider = insider

    @property
    def is_held(self) -> bool:
        """Whether a transaction is held open for the insider, which has time left."""
        return bool(self._held) and self._patience.left

    async def settled(self) -> None:
        """Wait until no transaction is open."""
        while self._held:
            await self._settled.wait()

    def read(self, look: Callable[[Book], T]) -> T:
        """What a function of the book answers; it must not write.

        Whoever is not inside waits until all is `settled` first.

        Raises:
            StoreUnavailableError: the store has failed.
            StoreError: it can't be answered.
        """
        self._parking.check_open()
        self._check_broken()
        try:
            return look(self.book)
        except StoreUnavailableError:
            raise
        except Exception as error:  # a caller's mistake is the caller's to hear
            if is_fatal(error):
                self._fatal(error)
            raise StoreError(f"{type(error).__name__}: {error}") from error

    async def write(self, run: Callable[[Book], T]) -> T:
        """Run a function of the book in a transaction; its answer once that is durable.

        Raises:
            StoreUnavailableError: the store has failed, or too many calls wait.
            StoreFullError: the disk is full; nothing was written.
            StoreError: it can't be written; nothing was.
        """
        result: T = await self._submit(Call(self._loop.create_future(), run))
        return result

    async def commit(self, commits: Sequence[Commit], inside: bool = False) -> Answers:
        """Judge and write commits in one transaction; raises as `write` does.

        Args:
            inside: by the insider, in the transaction that is held open if there is one.
        """
        check_call(commits)
        check_room(commits, self.book.roster.pending)
        call = Call(self._loop.create_future(), None, commits, inside)
        answers: Answers = await self._submit(call)
        return answers

    async def fire_due(self) -> None:
        """Write what is due by now, before somebody looks for it."""
        due_ms = self.book.agents.next_due_ms
        if due_ms is not None and due_ms <= self._clock.now_ms():
            await self.write(Book.fire_due)

    def close(self) -> None:
        """Write what was asked for, and close the file."""
        while self._held or self._waiting:
            self._patience.end()
            self._turn()
            self._serve()
        if self._insider is not None:
            self._insider.end()
        self._idle.cancel()
        self.book.close()
        self.file.close()

    def _submit(self, call: Call) -> asyncio.Future[Any]:
        self._parking.check_open()
        if len(self._waiting) >= CALLS_WAITING_MAX:
            raise StoreUnavailableError(f"{len(self._waiting)} calls are waiting")
        if call.inside and self._held:
            self._joining.append(call)
            return call.future
        self._waiting.append(call)
        if len(self._waiting) == 1:
            self._serve_soon()
        return call.future

    def _serve_soon(self) -> None:
        """If there is a group, and none is under way."""
        if self._waiting and not self._held:
            self._patience.begin()
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """One group of what has come, then whatever has gathered in the sockets."""
        if self._held or not self._waiting:
            return
        if self._is_early():
            self._loop.call_soon(self._serve)
        else:
            calls = self._taken()
            self._see_through(calls, lambda: self._write(calls, hold=True))
            self._serve_soon()

    def _is_early(self) -> bool:
        """Whether the insider still makes something of what it has heard, to be waited for."""
        if self._insider is None or self._insider.idle:
            return False
        return not any(call.inside for call in self._waiting) and self._patience.turn()

    def _turn(self) -> None:
        """A turn of the loop in which a transaction is open: end it, or wait for the insider."""
        if not self._held:  # the store was closed meanwhile
            return
        if not self._joining and self._patience.turn():
            self._loop.call_soon(self._turn)
            return
        held, joining = self._held, self._joining
        self._held, self._joining = [], []
        self._see_through([*held, *joining], lambda: self._join(held, joining))
        self._settled.set()
        self._serve_soon()

    def _see_through(self, calls: list[Call], work: Callable[[], None]) -> None:
        """Work at a transaction of these calls, and see to what follows once it is over."""
        try:
            work()
            if self._held:
                return
            self.book.agents.trim()
        except BaseException as error:  # a defect here would leave every caller waiting
            self._fatal(error)
            fail(calls, StoreUnavailableError(str(error)))
        self._idle.ended()
        self._put_off()
        self._on_end()

    def _taken(self) -> list[Call]:
        """Those of one transaction, in their order: of at most so many commits, or one."""
        calls: list[Call] = []
        commits = 0
        while self._waiting and commits < GROUP_COMMITS_MAX:
            calls.append(self._waiting.popleft())
            commits += len(calls[-1].commits)
        return calls

    def _join(self, held: list[Call], joining: list[Call]) -> None:
        """End a transaction that was open, with what the insider has made of it."""
        try:
            self._check_broken()
            self._execute(joining)
            self._commit([*held, *joining])
        except Exception as error:  # what the insider has heard is not so
            if is_fatal(error):
                raise
            assert self._insider is not None
            self._insider.undo()
            self._insider = None
            fail(joining, UndoneError())
            self._undo()
            for call in held:
                self._write([call])

    def _write(self, calls: list[Call], hold: bool = False) -> None:
        """One transaction of these calls.

        Args:
            hold: leave it open if it has something for the insider.
        """
        try:
            self._check_broken()
            self.file.connection.execute("BEGIN IMMEDIATE")
            self._execute(calls)
            if hold and self._insider is not None and self._insider.hear(self.book.rings):
                self._held = calls
                self._settled.clear()
                self._patience.begin()
                self._loop.call_soon(self._turn)
            else:
                self._commit(calls)
        except StoreUnavailableError as error:
            fail(calls, error)
        except Exception as error:  # whatever it was, the file and memory are as before it
            if is_fatal(error):
                self._fatal(error)
            else:
                self._undo()
            if self._broken:
                fail(calls, StoreUnavailableError(str(error)))
            elif code_of(error) == apsw.SQLITE_FULL:
                logger.error("the disk is full", extra={"action": "store.full"})
                fail(calls, StoreFullError(str(self.file.path)))
            else:
                self._one_by_one(calls, error)

    def _execute(self, calls: list[Call]) -> None:
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

    def _commit(self, calls: list[Call]) -> None:
        self.file.connection.execute("COMMIT")
        rings, self.book.rings = self.book.rings, {}
        for key in rings:
            self._parking.ring(key)
        if self._insider is not None:
            self._insider.ring(rings)
        for call in calls:
            if call.run is None:
                self.tally.count(call.result)
            call.succeed()

    def _one_by_one(self, calls: list[Call], error: Exception) -> None:
        if len(calls) > 1:
            for call in calls:
                self._write([call])
            return
        logger.error("a call can't be written: %s", error, extra={"action": "store.unwritable"})
        fail(calls, StoreError(f"{type(error).__name__}: {error}"))

    def _undo(self) -> None:
        def undo() -> None:
            if self.file.connection.in_transaction:
                self.file.connection.execute("ROLLBACK")
            self.book = self._read_book()

        self._guarded(undo)

    def _read_book(self) -> Book:
        return Book(self.file.connection, self._clock, self.file.incarnation, self._is_awaited)

    def _is_awaited(self, key: Hashable) -> bool:
        insider = self._insider
        return self._parking.is_awaited(key) or (insider is not None and insider.is_awaited(key))

    # what nobody waits for

    def _put_off(self) -> None:
        """See to it that what this transaction has left undone is done later."""
        self._idle.put_off()
        if self.file.durability == "process kill":
            self._idle.sync_soon()

    def _piece(self) -> bool:
        """Do a piece of what was put off; whether there may be more."""
        if self.file.log_pages() >= LOG_PAGES:
            self.file.move_log()
        elif self.book.is_behind:
            self._catch_up()
        else:
            return False
        return True

    def _catch_up(self) -> None:
        execute = self.file.connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            self.book.catch_up()
            execute("COMMIT")
        except apsw.Error:
            self._undo()
            raise

    # failures

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """Do what no caller waits for; a defect in it is as fatal as a file that fails."""
        try:
            return None if self._broken else work()
        except Exception as error:  # whatever it was: nobody waits to be told
            if not isinstance(error, apsw.Error) or is_fatal(error):
                self._fatal(error)
            return None

    def _fatal(self, error: BaseException) -> None:
        logger.critical("the store failed: %s", error, extra={"action": "store.failed"})
        self._broken = True
        self._on_fatal()

    def _check_broken(self) -> None:
        if self._broken:
            raise StoreUnavailableError("the store has failed")
