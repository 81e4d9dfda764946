"""Group commit to Redis: what gathers while scripts are on their way travels together.

A script call is kept short, because the server does nothing else meanwhile: a
call with more commits goes as several scripts, one after the other, and each
commit is still wholly there or not at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from runtime.errors import StoreError, StoreFullError, StoreUnavailableError
from runtime.store.contract import Commit, Committed, Record, Refused
from runtime.store.redis_wire import encode_commit

logger = logging.getLogger(__name__)

SCRIPT_COMMITS_MAX: Final = 64
"""Commits in one script: a few milliseconds of the server's time."""
SCRIPT_BYTES_MAX: Final = 4 << 20
"""Bytes from which on no further commit joins a script."""
FLIGHTS_MAX: Final = 2
"""Scripts on their way: the server works while answers are read and the next is made."""
COMMIT_BYTES_MAX: Final = 128 << 20
"""One call, encoded."""

Answers = list[Committed | Refused]


class _Defect(Record, frozen=True, tag="defect"):
    """No store could mean this commit; nothing of it was written."""

    what: str


_decode: Final = msgspec.msgpack.Decoder(list[Committed | Refused | _Defect]).decode
_pack: Final = msgspec.msgpack.Encoder().encode
_judge: Final = msgspec.msgpack.Decoder(list[Commit]).decode


class _Call:
    """One caller's commits, encoded, and where its answers go."""

    def __init__(self, commits: list[bytes]) -> None:
        self.commits = commits
        self.size_bytes = sum(map(len, commits))
        self.future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()

    def succeed(self, answers: list[Committed | Refused | _Defect]) -> None:
        kept: Answers = [one for one in answers if not isinstance(one, _Defect)]
        if len(kept) < len(answers):
            self.fail(_defective(answers))
        elif not self.future.done():
            self.future.set_result(kept)

    def fail(self, error: StoreError) -> None:
        if not self.future.done():
            self.future.set_exception(type(error)(*error.args))


class Commits:
    def __init__(self, run: Callable[[bytes], Awaitable[bytes]]) -> None:
        """`run` gives an array of commits to the script and answers what it says."""
        self._run = run
        self._gathered: deque[_Call] = deque()
        self._flights: set[asyncio.Task[None]] = set()

    async def commit(self, commits: Sequence[Commit]) -> Answers:
        call = _Call(_encoded(commits))
        if call.size_bytes > COMMIT_BYTES_MAX:
            raise ValueError(f"{call.size_bytes} bytes in one call, at most {COMMIT_BYTES_MAX}")
        self._gathered.append(call)
        self._start()
        return await call.future

    async def close(self) -> None:
        """Wait until every call has ended; the connection must be closed already."""
        while self._flights:
            await asyncio.wait(self._flights)

    def _start(self) -> None:
        while self._gathered and len(self._flights) < FLIGHTS_MAX:
            flight = asyncio.create_task(self._fly(self._next()))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._start()

    def _next(self) -> list[_Call]:
        """Calls for one script; a call that is too long for one goes alone."""
        calls: list[_Call] = []
        count = size = 0
        while self._gathered:
            call = self._gathered[0]
            count += len(call.commits)
            size += call.size_bytes
            if calls and (count > SCRIPT_COMMITS_MAX or size > SCRIPT_BYTES_MAX):
                break
            calls.append(self._gathered.popleft())
        return [call for call in calls if not call.future.done()]

    async def _fly(self, calls: list[_Call]) -> None:
        if not calls:
            return
        try:
            answers = await self._write([commit for call in calls for commit in call.commits])
        except StoreFullError as error:  # nothing was written: whose fault was it?
            if len(calls) == 1:
                return calls[0].fail(error)
            for call in calls:
                await self._fly([call])
        except StoreError as error:
            for call in calls:
                call.fail(error)
        else:
            for call in calls:
                call.succeed(answers[: len(call.commits)])
                del answers[: len(call.commits)]

    async def _write(self, commits: list[bytes]) -> list[Committed | Refused | _Defect]:
        answers: list[Committed | Refused | _Defect] = []
        for part in _parts(commits):
            try:
                answers += _decode(await self._run(_array(part)))
            except StoreFullError as error:
                if not answers:
                    raise
                raise StoreUnavailableError("a part was written", *error.args) from error
            except StoreUnavailableError:
                raise
            except Exception as error:  # nobody may wait for ever, and who knows what is written
                raise StoreUnavailableError("a part may be written", str(error)) from error
        return answers


def _encoded(commits: Sequence[Commit]) -> list[bytes]:
    """Commits as the script reads them.

    What it finds wrong with one is known when it has written others, so those of a call that
    has several are judged before.

    Raises:
        ValueError: a part of one is not of its type.
    """
    try:
        if len(commits) > 1:
            _judge(_pack(commits))
        return [encode_commit(commit) for commit in commits]
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a commit can't be written down: {error}") from error


def _defective(answers: list[Committed | Refused | _Defect]) -> StoreError:
    """What is told of a call with a defect: whether a part of it is written."""
    what = next(one.what for one in answers if isinstance(one, _Defect))
    if what.startswith("torn") or any(isinstance(one, Committed) for one in answers):
        logger.error("a commit can't be carried out: %s", what, extra={"action": "store.defect"})
        return StoreUnavailableError("a part was written, and a commit can't be", what)
    return StoreError("a commit can't be carried out", what)


def _parts(commits: list[bytes]) -> list[list[bytes]]:
    """Commits in order, cut so that each part is short enough for one script."""
    parts: list[list[bytes]] = [[]]
    size = 0
    for commit in commits:
        size += len(commit)
        if parts[-1] and (len(parts[-1]) == SCRIPT_COMMITS_MAX or size > SCRIPT_BYTES_MAX):
            parts.append([])
            size = len(commit)
        parts[-1].append(commit)
    return parts


def _array(encoded: list[bytes]) -> bytes:
    """A msgpack array of what is encoded already."""
    return b"\xdd" + len(encoded).to_bytes(4, "big") + b"".join(encoded)
