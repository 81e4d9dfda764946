"""The jobs of one agent: which one runs, which wait, and the word of the scheduler.

A job's run *is* an unacknowledged message: the scheduler sends `job.run` and
the host acknowledges it in the commit that ends the run.  So a host that dies
loses nothing and tells nobody: the lease lapses, another host claims the
agent, finds the message and runs process_task again over the recorded steps.

Control messages (`job.run`, `job.cancel`, `job.pause`, `job.resume`, `job.signal`)
come from the scheduler only and never reach the agent's handler; what the runtime tells
an agent about jobs it asked for (`job.completed`, ...) does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Unpack

from runtime.clock import iso
from runtime.deadletters import burial
from runtime.errors import told
from runtime.ids import SCHEDULER, SCHEDULER_AGENT
from runtime.job import JobStatus
from runtime.jobs.events import is_run_of
from runtime.jobs.run import JobRun
from runtime.jobs.writer import LostError
from runtime.message import Message
from runtime.store.contract import Ack, Parts, Put, Refused, Send, StoredMessage
from runtime.turn import to_json

if TYPE_CHECKING:
    from runtime.hosting.activation import Activation

logger = logging.getLogger(__name__)

CONTROL = frozenset({"job.run", "job.cancel", "job.pause", "job.resume", "job.signal"})


class JobLane:
    """The agent's jobs: the one that runs and those that wait for it to end."""

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        self._queued: deque[tuple[StoredMessage, Message]] = deque()
        self._introduced = False
        self._current: JobRun | None = None
        self._task: asyncio.Task[None] | None = None
        self._early: dict[str, list[str]] = {}
        """Job that has not begun here -> what was asked of it: what is read may not say so."""

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def introduced(self) -> bool:
        """Whether the agent is known; one that has had no turn is made known by its job."""
        return self._introduced or self._activation.version > 0

    def introduce(self) -> None:
        """Its description is durable."""
        self._introduced = True

    def takes(self, message: Message) -> bool:
        """Whether a message is control of jobs; only the scheduler may give it."""
        return message.message_type in CONTROL and message.sender == SCHEDULER_AGENT

    async def handle(self, stored: StoredMessage, message: Message) -> None:
        """Begin a run, or note what is asked of one."""
        if message.message_type == "job.run":
            await self._queue(stored, message)
            return
        signals = message.message_type == "job.signal"
        if not signals:  # heeded before it is acknowledged: what begins meanwhile must know
            self._tell(message)
        parts = self._signal(stored, message)
        parts["acks"] = (Ack(stored.message_id),)
        await self._write(**parts)
        self._activation.done(stored.seq)
        if signals:
            self._tell(message)

    async def _queue(self, stored: StoredMessage, message: Message) -> None:
        job_id = message.content["jobId"]
        if not is_run_of(stored.message_id, job_id):  # given up once, and delivered by hand
            await self._pass_over(stored)
            return
        self._queued.append((stored, message))
        self._early[job_id] = []
        if not self.busy:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What ends it unasked leaves a run undone: the agent is claimed anew, with its inbox."""
        error = None if task.cancelled() else task.exception()
        if self._activation.stopped or not (task.cancelled() or error):
            return
        logger.error(
            "the runs of %s have ended unasked",
            self._activation.address,
            exc_info=error,
            extra={"action": "job.broken", "agent": self._activation.address},
        )
        self._activation.host.lost(self._activation)

    async def _pass_over(self, stored: StoredMessage) -> None:
        """There is nothing to run any more, and nobody to tell."""
        await self._write(acks=(Ack(stored.message_id),))
        self._activation.done(stored.seq)

    def _tell(self, message: Message) -> None:
        """Have the run heed what is asked of it, now or when it begins."""
        run = self._current
        if run is not None and run.record.id == message.content["jobId"]:
            run.control(message.message_type)
        elif (asked := self._early.get(message.content["jobId"])) is not None:
            asked.append(message.message_type)

    def _signal(self, stored: StoredMessage, message: Message) -> Parts:
        """What a signal leaves behind: its content, and word to the scheduler in the same commit.

        The word is sent even while the job runs: its run may be about to end in
        a wait, and then nobody else would wake it.
        """
        if message.message_type != "job.signal":
            return {}
        content, organization = message.content, self._activation.organization
        key = f"{content['jobId']}/{content['name']}"
        put = Put("signal", key, organization, to_json(content.get("content")))
        return {"puts": (put,), "sends": (self._ready(content["jobId"], stored.seq),)}

    def _ready(self, job_id: str, seq: int) -> Send:
        """Word to the scheduler that a waiting job has what it may have waited for."""
        message = Message(
            message_id=f"job.ready:{job_id}:{seq}",
            sender=self._activation.agent_id,
            recipient=SCHEDULER_AGENT,
            message_type="job.ready",
            content={"jobId": job_id},
            timestamp=iso(self._activation.host.clock.now_ms()),
        )
        return Send(message.message_id, self._activation.address, SCHEDULER, message.to_json())

    async def _write(self, **parts: Unpack[Parts]) -> None:
        if isinstance(await self._activation.write(**parts), Refused):
            self._activation.host.lost(self._activation)

    async def stop(self) -> None:
        """Abandon what runs, uncommitted; it is resumed from its steps elsewhere."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._queued:
            stored, message = self._queued.popleft()
            try:
                self._current = run = await self._load(stored, message)
                if run is None:
                    await self._pass_over(stored)
                    continue
                await self._go(run, stored)
                self._activation.done(stored.seq)
            except LostError as lost:
                logger.warning(
                    "a job of %s was fenced: %s",
                    self._activation.address,
                    lost,
                    extra={"action": "job.fenced", "agent": self._activation.address},
                )
                self._activation.host.lost(self._activation)
                return
            except Exception as error:  # what the author's code raises is caught where it runs
                logger.exception(
                    "a run of %s can't go on",
                    self._activation.address,
                    extra={"action": "job.broken", "agent": self._activation.address},
                )
                await self._give_up(stored, error)
            finally:
                self._current = None

    async def _go(self, run: JobRun, stored: StoredMessage) -> None:
        """Have it run, unless hosts have died of it."""
        suspects = self._activation.suspects
        if suspects is None:
            await run.run()
            return
        async with suspects.begun(stored, run.results, run.had_begun) as mark:
            if mark is None or not mark.is_enough:
                await run.run(mark)
            else:
                await run.quarantine(mark, suspects.told(stored, mark, run.record.id))
                self._activation.host.quarantined += 1

    async def _give_up(self, stored: StoredMessage, error: Exception) -> None:
        """It can't begin, or not even its failure can be written: it ends as a message given up."""
        now_ms = self._activation.host.clock.now_ms()
        parts = burial(self._activation.address, stored, told(error), now_ms)
        if self._activation.suspects is not None:
            parts["puts"] += self._activation.suspects.settled(stored)
        await self._write(**parts)
        self._activation.done(stored.seq)

    async def _load(self, stored: StoredMessage, message: Message) -> JobRun | None:
        """None: the job does not run, or is not there: it was mended by hand, or forgotten.

        A run that has ended is acknowledged in the same commit, so it is not one of these.
        """
        run = JobRun.carried(self._activation, stored, message)
        if run is None:
            run = await JobRun.load(self._activation, stored, message)
        early = self._early.pop(message.content["jobId"], ())
        if run is None or run.record.status is not JobStatus.RUNNING:
            return None
        for asked in early:
            run.control(asked)
        return run
