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
from runtime.jobs.events import finished_send, job_event, job_send, renamed, took_ms
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
    async def load(cls, activation: Activation, stored: StoredMessage, message: Message) -> JobRun:
        store = activation.host.store
        job_id = message.content["jobId"]
        document, steps, asked = await asyncio.gather(
            patiently(store.get, "job", job_id),
            patiently(store.steps, job_id),
            patiently(store.get, "asked", job_id),
        )
        if document is None:
            raise LostError(f"job {job_id} has no record")
        record = AgentJob.from_json(document.body)
        look = message.content.get("look")
        run = cls(activation, stored, record, document.revision, steps, look)
        if asked is not None:
            run.control(f"job.{asked.body.decode()}")
        return run

    def control(self, message_type: str) -> None:
        """Cancel, pause or signal the running job."""
        if message_type == "job.signal":
            self._signalled = True
            return
        self._asked = message_type.removeprefix("job.")
        if self._asked == "cancel" and self._work is not None:
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
                await self._end("paused", {"status": JobStatus.PAUSED, "reason": "paused"})
            except (JobCancelled, asyncio.CancelledError):
                if not self._is_cancelled():
                    raise  # the host stops: leave it for the next activation
                await self._finish(JobStatus.CANCELLED, None, "cancelled")
            except LostError:
                raise
            except Exception as error:  # the author's code may raise anything; it fails the attempt
                logger.warning(
                    "job %s failed",
                    self._record.id,
                    exc_info=True,
                    extra={"action": "job.attempt_failed", "agent": self._activation.address},
                )
                final = isinstance(error, (JobFailedError, NondeterminismError))
                await self._fail(error, final)
            else:
                await self._finish(JobStatus.COMPLETED, result, result.outcome)
            return

    async def _process(self) -> JobResult:
        self._introduce_soon()
        self._work = asyncio.current_task()
        try:
            result = await self._activation.agent.process_task(self)
            return result.checked()  # else its record could be written and never read
        finally:
            self._work = None
            for later in (self._flush, self._introduction):
                if later is not None:
                    later.cancel()

    def _is_cancelled(self) -> bool:
        """Whether what ended process_task was the cancel of this job, not the host's end too."""
        task = asyncio.current_task()
        assert task is not None
        return self._asked == "cancel" and task.uncancel() == 0

    async def _fail(self, error: Exception, final: bool) -> None:
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
        error: Exception | None = None,
    ) -> None:
        """One commit: the record, the acknowledgement, and word to whom it concerns.

        No earlier commit may take a part of it: a host that died between the two
        would leave a job that has ended and runs again.
        """
        record = replace(self._record, **changed)
        content = {"jobId": record.id, "outcome": outcome, **more, **_over(record)}
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
            more["duration"] = max(0, now_ms - self._stored.accepted_ms)  # of this run, in ms
        event = job_event(record, f"job:{outcome}", now_ms, **more)
        if outcome in ("completed", "failed", "paused"):
            return (event, renamed(event, f"agent:{outcome}"))
        return (event,)

    def _send(self, where: str, recipient: str, content: Any, message_type: str) -> Send:
        activation = self._activation
        message_id = f"{message_type}:{self._record.id}:{self._stored.seq}"
        now_ms = activation.host.clock.now_ms()
        told = (message_id, message_type, content, now_ms)
        return job_send(activation.agent_id, activation.address, recipient, where, *told)


def _over(record: AgentJob) -> dict[str, Any]:
    """What the scheduler has to know of a job that is over, so that it need not read it."""
    if not record.status.final:
        return {}
    took = took_ms(record)
    return {"agentType": record.agent_type, **({} if took is None else {"tookMs": took})}
