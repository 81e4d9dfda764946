"""What a run of a job makes durable, and in which commits.

A step's result is written at once, in one commit with the intent of the next
step when that follows without a pause: nothing is called before every earlier
result is durable.  Progress, money and events gather for a second and go with
whatever is written first.  One commit is out at a time, and goes on to its end
when its caller is cancelled.  When to write what is `jobs.run`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from runtime.errors import StoreError
from runtime.job import AgentJob, JobStatus
from runtime.jobs.events import job_event, job_rooms, record_put, renamed, told_send
from runtime.patience import patiently
from runtime.store.contract import FeedEvent, Intent, Put, Refused, Result, Send
from runtime.turn import feed_event

if TYPE_CHECKING:
    from runtime.hosting.activation import Activation

PROGRESS_FLUSH_S = 1.0
"""Progress becomes durable at the latest after this."""


UNWRITABLE = (StoreError, ValueError)
"""What a store raises for a commit it can't write; nothing of it is there."""
FENCED = frozenset({"stale_epoch", "stale_incarnation"})
"""Refusals after which a run must not go on, whether or not its commit had landed."""


class LostError(Exception):
    """A commit of the run was refused: somebody else has the agent."""


class JobWriter:
    """Owns the record of a running job."""

    def __init__(
        self, activation: Activation, record: AgentJob, revision: int, look: int | None
    ) -> None:
        """
        Args:
            look: names the moment, if the run only looks whether a wait is over.
        """
        self._activation = activation
        self._record = record
        self._revision = revision
        self._feed: list[FeedEvent] = []
        self._ended: list[tuple[Intent | None, Result]] = []
        """Steps whose results no commit has taken yet."""
        self._dirty = False
        self._flush: asyncio.Task[None] | None = None
        self._write_lock = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()
        self._unwritable: Exception | None = None
        """Why a commit could not be written; what it took is gone, so the run must not go on."""
        self._look = record if look is not None and record.reason else None
        """The waiting job as it was, until this run has written anything: see `_going_on`."""
        self._moment = look
        self._introduction: asyncio.TimerHandle | None = None

    def _introduce_soon(self) -> None:
        """Make the agent known with the first commit, at the latest after the time of a flush."""
        if not self._activation.jobs.introduced:
            loop = asyncio.get_running_loop()
            self._introduction = loop.call_later(PROGRESS_FLUSH_S, self._introduce)

    def _introduce(self) -> None:
        self._writing(self._write_gathered())

    def _change(self, **changed: Any) -> None:
        self._record = replace(self._record, **changed).checked()
        self._dirty = True
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        await asyncio.sleep(PROGRESS_FLUSH_S)
        if self._dirty:
            with suppress(LostError, *UNWRITABLE):  # what the run does next meets it too
                await self._commit()

    def _publish(self, event: str, data: dict[str, Any]) -> None:
        now_ms = self._activation.host.clock.now_ms()
        organization, rooms = self._activation.organization, job_rooms(self._record)
        self._feed.append(feed_event(organization, event, data, rooms, now_ms))

    def _write_soon(self, intent: Intent | None, outcome: bytes, key: str) -> None:
        """Have a result written with the next commit, which begins before anything is waited for.

        A refusal is met again, and raised, by whatever the run commits next.
        """
        self._ended.append((intent, Result(self._record.id, key, outcome)))
        self._writing(self._write_ended())

    async def _write_ended(self) -> None:
        await asyncio.sleep(0)  # a step that follows at once begins first, and takes it along
        await self._write_gathered()

    async def _write_gathered(self) -> None:
        with suppress(LostError, *UNWRITABLE):
            await self._commit_now()

    async def _commit(self, **fields: Any) -> None:
        """Commit with the results and the progress that have gathered.

        Goes on to its end when the caller is cancelled: what it took would be lost else.

        Raises:
            LostError: refused, and it had not landed or the agent is another's by now.
            StoreError, ValueError: the store can't write it; the run has failed.
        """
        await asyncio.shield(self._writing(self._commit_now(**fields)))

    def _writing(self, commit: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(commit)
        self._writes.add(task)
        task.add_done_callback(self._wrote)
        return task

    def _wrote(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, for a run that is cancelled waits for it no more

    async def _commit_now(self, **fields: Any) -> None:
        async with self._write_lock:
            before = self._record
            try:
                await self._commit_gathered(**fields)
            except UNWRITABLE as error:
                self._record, self._unwritable = before, error
                raise

    async def _commit_gathered(
        self,
        end: AgentJob | None = None,
        puts: tuple[Put, ...] = (),
        intents: tuple[Intent, ...] = (),
        feed: tuple[FeedEvent, ...] = (),
        sends: tuple[Send, ...] = (),
        **fields: Any,
    ) -> None:
        self._record = end or self._record
        if self._look and (end or self._has_news or puts or intents):
            sends = (*self._going_on(), *sends)
        if end or self._dirty:
            puts = (*puts, record_put(self._record, self._revision))
        if not self._activation.jobs.introduced:
            puts = (*puts, self._activation.description())
        feed, self._feed, self._dirty = (*self._feed, *feed), [], False
        ended, self._ended = self._ended, []
        intents = (*(intent for intent, _ in ended if intent is not None), *intents)
        results = tuple(result for _, result in ended)
        if not (puts or feed or intents or results or sends or fields):
            return  # another commit has taken it
        answer = await self._activation.write(
            puts=puts, feed=feed, intents=intents, results=results, sends=sends, **fields
        )
        if isinstance(answer, Refused) and (
            answer.reason in FENCED or not await self._landed(puts, results)
        ):
            raise LostError(f"{answer.reason} {answer.detail}")
        self._activation.jobs.introduce()
        self._revision += any(put.collection == "job" for put in puts)

    @property
    def _has_news(self) -> bool:
        return bool(self._dirty or self._feed or self._ended)

    def _going_on(self) -> tuple[Send, ...]:
        """A look has led to more: what it writes first begins with the word that it has started.

        The scheduler, which starts a job whose wait is over, has told nobody.
        """
        assert self._moment is not None
        self._look, activation = None, self._activation
        if self._record.status in (JobStatus.CANCELLED, JobStatus.PAUSED):
            return ()
        if self._record.status is JobStatus.RUNNING:
            self._record, self._dirty = replace(self._record, reason=None), True
        now_ms = activation.host.clock.now_ms()
        event = job_event(self._record, "job:started", now_ms, status=JobStatus.RUNNING)
        self._feed[:0] = [event, renamed(event, "agent:started")]
        if not self._record.reply_to:
            return ()
        sender, where = activation.agent_id, activation.address
        return (told_send(self._record, "started", {}, sender, where, self._moment, now_ms),)

    async def _landed(self, puts: tuple[Put, ...], results: tuple[Result, ...]) -> bool:
        """Whether a refused commit is in the store after all: its call was repeated.

        While the agent is this run's nobody else writes its record or its steps, so
        finding just these bytes there means that this commit wrote them.  Of an agent
        that is another's it would not: two runs may write the same in the same moment.
        """
        store = self._activation.host.store
        for put in puts:
            if put.collection == "job":
                document = await patiently(store.get, "job", self._record.id)
                return document is not None and document.body == put.body
        if results:
            steps = await patiently(store.steps, self._record.id)
            recorded = {step.key: step.result for step in steps}
            return all(recorded.get(result.key) == result.body for result in results)
        return False
