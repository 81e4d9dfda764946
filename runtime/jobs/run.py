"""One run of `process_task`, from the record it begins with to the one commit of its end.

While the run lasts, its host owns the job's record; before and after, the
scheduler does.  What process_task may ask for meanwhile is `jobs.work`'s, what
becomes durable with what `jobs.writer`'s business.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from runtime.clock import iso
from runtime.errors import (
    JobCancelled,
    JobFailedError,
    JobPaused,
    JobWaiting,
    NondeterminismError,
    told,
)
from runtime.hosting.suspects import REASON, Mark
from runtime.ids import SCHEDULER, SCHEDULER_AGENT
from runtime.job import (
    AgentJob,
    JobResult,
    JobStatus,
)
from runtime.jobs.events import finished_send, job_event, job_send, renamed
from runtime.jobs.work import JobWork
from runtime.jobs.writer import UNWRITABLE, LostError
from runtime.message import Message
from runtime.patience import patiently
from runtime.sessions import end_of_run
from runtime.store.contract import (
    ABSENT,
    Ack,
    FeedEvent,
    Put,
    Send,
    Step,
    StoredMessage,
)

if TYPE_CHECKING:
    from runtime.hosting.activation import Activation

logger = logging.getLogger(__name__)


class JobRun(JobWork):
    """One run of process_task."""

    def __init__(
        self,
        activation: Activation,
        stored: StoredMessage,
        record: AgentJob,
        revision: int,
        steps: list[Step],
        look: int | None = None,
    ) -> None:
        super().__init__(activation, record, revision, steps, look)
        self._stored = stored
        self._signalled = False
        self._mark: Mark | None = None
        self._work: asyncio.Task[Any] | None = None
        """The task that is in process_task."""
        self._cut = False
        """Whether the cancel of the job has ended process_task."""
        self._stops = False
        """Whether the end of the host has."""

    @classmethod
    def carried(
        cls, activation: Activation, stored: StoredMessage, message: Message
    ) -> JobRun | None:
        """A job's first run, if the message has all there is to know of it.

        Who has the message first reads nothing: no step is recorded, and the record is as
        the scheduler wrote it with the message.  What was asked of it comes behind the
        message; if anything already has, it is read.
        """
        content, inbox = message.content, activation.inbox
        first = inbox.is_first_to_have(stored.seq) and not inbox.has_behind(stored.seq, SCHEDULER)
        if "job" not in content or not first:
            return None
        record = AgentJob.from_wire(content["job"])
        return cls(activation, stored, record, content["revision"], [])

    @classmethod
    async def load(
        cls, activation: Activation, stored: StoredMessage, message: Message
    ) -> JobRun | None:
        """A run from what is recorded; None: there is no such job any more."""
        store = activation.host.store
        job_id = message.content["jobId"]
        document, steps, asked = await asyncio.gather(
            patiently(store.get, "job", job_id),
            patiently(store.steps, job_id),
            patiently(store.get, "asked", job_id),
        )
        if document is None:
            return None
        record = AgentJob.from_json(document.body)
        look = message.content.get("look")
        run = cls(activation, stored, record, document.revision, steps, look)
        if asked is not None:
            run.control(f"job.{asked.body.decode()}")
        return run

    def control(self, message_type: str) -> None:
        """Cancel, pause or signal the running job, or take the pause back.

        A cancel holds: whatever is asked after it changes nothing.
        """
        if message_type == "job.signal":
            self._signalled = True
        elif self._asked == "cancel":
            return
        elif message_type == "job.resume":
            self._asked = None
        else:
            self._asked = message_type.removeprefix("job.")
            if self._asked == "cancel" and self._work is not None:
                self._cut = True
                self._work.cancel()

    # Running

    @property
    def results(self) -> int:
        """Steps that have a result."""
        return sum(step.result is not None for step in self._steps.values())

    @property
    def had_begun(self) -> bool:
        """Whether an earlier activation has left a trace of this run."""
        _, _, handed_at = self._stored.message_id.rpartition(":")  # the record's revision then
        written = handed_at.isdecimal() and self._revision > int(handed_at) + 1
        return written or any(s.at_ms >= self._stored.accepted_ms for s in self._steps.values())

    async def quarantine(self, mark: Mark, event: FeedEvent) -> None:
        """End it without running: hosts have died of it, and no further one may."""
        self._mark = mark
        logger.error(
            "job %s is given up: %s",
            self._record.id,
            mark.error,
            extra={"action": "job.quarantined", "agent": self._activation.address},
        )
        self._feed.append(event)
        changed = {"error": mark.error, "reason": REASON}
        await self._write_end("failed", changed, {"final": True, "error": mark.error})

    async def run(self, mark: Mark | None = None) -> None:
        """Run process_task to one of its ends and commit that end.

        Args:
            mark: what is known of it, if a host may have died of it.
        """
        self._mark = mark
        logger.info(
            "job %s runs",
            self._record.id,
            extra={"action": "job.started", "agent": self._activation.address},
        )
        while True:
            self._signalled = False
            self._missed.clear()
            try:
                self._heed()
                result = await self._process()
                self._check_state()
            except JobWaiting as waiting:
                if self._signalled:
                    continue
                more = {"resumeAtMs": waiting.resume_at_ms, "still": self._still(waiting.reason)}
                changed = {"status": JobStatus.WAITING, "reason": waiting.reason}
                await self._end("waiting", changed, more)
            except JobPaused:
                changed = {"status": JobStatus.PAUSED, "reason": "paused"}
                await self._end("paused", changed, {"asked": self._asked == "pause"})
            except (JobCancelled, asyncio.CancelledError) as cut:
                if self._stops:
                    raise  # leave it for the next activation
                if self._asked == "cancel":
                    await self._finish(JobStatus.CANCELLED, None, "cancelled")
                else:  # what it has waited for was cancelled, and nobody has asked for that
                    await self._failed(cut)
            except (LostError, KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # the author's code may raise anything
                await self._failed(error)
            else:
                await self._finish(JobStatus.COMPLETED, result, result.outcome)
            return

    async def _process(self) -> JobResult:
        self._introduce_soon()
        self._work = task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()  # what an earlier run of this task has not taken back
        try:
            result = await self._activation.agent.process_task(self)
            return result.checked()  # else its record could be written and never read
        finally:
            self._work = None
            if self._cut:
                task.uncancel()
            self._stops = task.cancelling() > before
            for later in (self._flush, self._introduction):
                if later is not None:
                    later.cancel()

    async def _failed(self, error: BaseException) -> None:
        """The attempt has, by what process_task raised."""
        logger.warning(
            "job %s failed",
            self._record.id,
            exc_info=True,
            extra={"action": "job.attempt_failed", "agent": self._activation.address},
        )
        await self._fail(error, isinstance(error, (JobFailedError, NondeterminismError)))

    async def _fail(self, error: BaseException, final: bool) -> None:
        text = told(error)
        await self._write_end("failed", {"error": text}, {"final": final, "error": text}, error)

    async def _finish(self, status: JobStatus, result: JobResult | None, outcome: str) -> None:
        changed: dict[str, Any] = {
            "status": status,
            "reason": outcome,
            "result": result,
            "completed_at": iso(self._activation.host.clock.now_ms()),
        }
        if status is JobStatus.COMPLETED:
            changed["progress"] = 100
        await self._end(status.value, changed)

    async def _end(
        self, outcome: str, changed: dict[str, Any], more: dict[str, Any] | None = None
    ) -> None:
        """Write the end; when that can't be written, the attempt has failed."""
        try:
            await self._write_end(outcome, changed, more or {})
        except UNWRITABLE as error:
            await self._fail(error, final=False)

    async def _write_end(
        self,
        outcome: str,
        changed: dict[str, Any],
        more: dict[str, Any],
        error: BaseException | None = None,
    ) -> None:
        """One commit: the record, the acknowledgement, and word to whom it concerns.

        No earlier commit may take a part of it: a host that died between the two
        would leave a job that has ended and runs again.
        """
        record = replace(self._record, **changed)
        content = {"jobId": record.id, "outcome": outcome, **more}
        if record.status.final:
            content["agentType"] = record.agent_type  # so that the scheduler need not read it
        if not more.get("still"):
            content["tookMs"] = self._took_ms()
            if self._moment is not None:
                content["looked"] = True  # so it has started: nobody has counted it yet
        sends = [self._send(SCHEDULER, SCHEDULER_AGENT, content, "job.ended")]
        if record.reply_to and record.status.final:
            activation = self._activation
            now_ms = activation.host.clock.now_ms()
            sends.append(
                finished_send(
                    record, activation.agent_id, activation.address, self._stored.seq, now_ms
                )
            )
        cuts = self._mark.cuts if self._mark is not None else ()
        reply = end_of_run(outcome, record, error, bool(more.get("still")), cuts)
        puts = self._still_missed() if record.status is JobStatus.WAITING else ()
        if self._activation.suspects is not None:
            puts += self._activation.suspects.settled(self._stored)
        await self._commit_now(  # cut off by the host's end it may land or not: both are whole
            end=record,
            puts=puts,
            feed=() if more.get("still") else self._end_events(record, outcome),
            acks=(Ack(self._stored.message_id, reply),),
            sends=tuple(sends),
        )

    def _still(self, reason: str) -> bool:
        """Whether this look has found what the job waits for; then it leaves no trace."""
        if self._look is None or self._look.reason != reason or self._ended:
            return False
        self._record, self._look = self._look, None
        self._feed, self._dirty = [], False
        return True

    def _still_missed(self) -> tuple[Put, ...]:
        """The condition of a wait: no signal it waits for has come since it looked.

        Else the commit is refused, the run is lost, and the next one finds the signal.
        """
        organization = self._activation.organization
        return tuple(Put("signal", key, organization, None, (), ABSENT) for key in self._missed)

    def _end_events(self, record: AgentJob, outcome: str) -> tuple[FeedEvent, ...]:
        now_ms = self._activation.host.clock.now_ms()
        more: dict[str, Any] = {}
        if record.error and outcome == "failed":
            more["error"] = record.error
        if outcome == "completed":
            more["duration"] = self._took_ms()
        event = job_event(record, f"job:{outcome}", now_ms, **more)
        if outcome in ("completed", "failed", "paused"):
            return (event, renamed(event, f"agent:{outcome}"))
        return (event,)

    def _took_ms(self) -> int:
        """How long this run has held its slot."""
        return max(0, self._activation.host.clock.now_ms() - self._stored.accepted_ms)

    def _send(self, where: str, recipient: str, content: Any, message_type: str) -> Send:
        activation = self._activation
        message_id = f"{message_type}:{self._record.id}:{self._stored.seq}"
        now_ms = activation.host.clock.now_ms()
        told = (message_id, message_type, content, now_ms)
        return job_send(activation.agent_id, activation.address, recipient, where, *told)
