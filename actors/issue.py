"""The IssueAgent: the saga of one issue, from the first message to delivered work.

    triage -> work -> automated review -> human review -> delivery -> done
      |        ^            |                  |
      |        '-- bounce --'   '-- rejected --'      (each has its limit)
      '-> asks a person, when it can't tell what kind of work this is

Every turn is pure: it decides from its state and the message, and asks others
by message or job.  It waits for exactly one thing at a time, named by `stage`
and `job`; what comes twice, late, or from somebody who may not say it, changes
nothing.  What people see of it is written by `issue_record`.

Messages:
    issue.submitted {issue, jobId}   issue.cancel {by}   issue.message {text, by, agentType?}
    triage.classified {asked, classification, jobId?}
    job.started | waiting | completed | failed | cancelled {jobId, ...}
    review.decided {approved, artifactHash, comment, by}
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from actors.assignment import Assignment, Note, ReviewOpinion, Work, notes_of
from actors.issue_record import IssueRecord, Stage
from actors.records import (
    COMMENT_LENGTH_MAX,
    AgentIssue,
    Classification,
    Review,
    ReviewClosedError,
    ReviewDecision,
    ReviewOutdatedError,
    decide,
)
from actors.settings import DepartmentSettings
from runtime.agent import is_client
from runtime.clock import iso
from runtime.ids import SCHEDULER, AgentId, kind_of
from runtime.job import JobResult
from runtime.message import Message

_ERROR_NAME = re.compile(r"^\w+Error: ")
"""What the runtime puts in front of an error's sentence."""

logger = logging.getLogger(__name__)

TRIAGE: Final = "triage:main"
SCHEDULER_ID: Final = SCHEDULER.partition("/")[2]
BOUNCES_MAX: Final = 2
"""Times the automated review may send work back before a person decides."""
REJECTIONS_MAX: Final = 3
"""Times a person's comment leads to another try."""
MESSAGES_MAX: Final = 200
"""Messages from people that one issue takes."""


class IssueAgent(IssueRecord):
    """One for each issue; its key is the issue's id."""

    kind = "issue"
    role = "issue"
    capabilities = ("track_issue",)

    def __init__(self, agent_id: AgentId, settings: DepartmentSettings) -> None:
        super().__init__(agent_id, settings)
        self._handlers: dict[str, Callable[[Message], Awaitable[None]]] = {
            "issue.submitted": self._submitted,
            "issue.cancel": self._cancel,
            "issue.message": self._spoken_to,
            "triage.classified": self._classified,
            "job.started": self._job_moved,
            "job.waiting": self._job_moved,
            "job.completed": self._job_ended,
            "job.failed": self._job_ended,
            "job.cancelled": self._job_ended,
            "review.decided": self._review_decided,
        }

    async def receive_message(self, message: Message) -> dict[str, Any] | None:
        """Handle a message; a client is told where the issue stands."""
        handler = self._handlers.get(message.message_type)
        before = self.state.model_copy()
        if handler is None or not _may_say(message):
            logger.info(
                "%s ignores %s from %s",
                self.agent_id,
                message.message_type,
                message.sender,
                extra={"action": "issue.ignored", "agent": self.agent_id},
            )
        else:
            await handler(message)
        if not is_client(message.sender):
            return None
        issue = self.state.issue
        return {
            "changed": self.state != before,
            "status": issue.status if issue else None,
            "reason": issue.reason if issue else None,
        }

    # Intake and triage

    async def _submitted(self, message: Message) -> None:
        if self.state.stage is not Stage.NEW:
            return
        self.state.issue = AgentIssue.model_validate(message.content["issue"])
        self.state.first_job = message.content["jobId"]
        await self._ask_triage()

    async def _ask_triage(self) -> None:
        self.state.stage = Stage.TRIAGE
        self.state.asked += 1
        content = {"asked": self.state.asked, "issue": self._issue.to_wire()}
        await self.send_message(TRIAGE, content, "triage.classify")

    async def _classified(self, message: Message) -> None:
        if self.state.stage is not Stage.TRIAGE or message.content["asked"] != self.state.asked:
            return
        if message.content.get("jobId"):
            await self._settle(message.content["jobId"])
        found = Classification.model_validate(message.content["classification"])
        context = self._issue.context
        if context.module is None and found.module is not None:
            context = context.model_copy(update={"module": found.module})
        self._change(
            classification=found, type=found.type, priority=found.priority, context=context
        )
        if found.agent_type == "triage":
            self.state.stage = Stage.ASKED
            self._move("review", reason=found.abstain_reason or "needs_triage")
        else:
            self._work(found.agent_type)

    # Work

    def _work(self, kind: Literal["code", "research"], notes: tuple[Note, ...] = ()) -> None:
        """Queue the job that does the work, or does it again with notes."""
        repository = self._issue.context.repository or self._settings.repository
        if repository is None:
            self._end(
                "failed", "no_repository", "Name context.repository, or set TROUPE_REPOSITORY."
            )
            return
        self.state.stage = Stage.WORK
        self.state.told = 0
        assignment = Assignment(
            issue=self._issue,
            repository=repository,
            base_ref=self._issue.context.base_ref,
            notes=notes,
            work=self.state.work if notes else None,
        )
        self._queue(kind, assignment)
        self._move("queued")

    async def _job_moved(self, message: Message) -> None:
        """The present job has begun, or waits for something."""
        if not self._is_present_job(message):
            return
        if message.message_type == "job.started":
            if self._issue.status != "processing":
                self._move("processing")
        else:
            self._move("pending", reason=message.content.get("reason"))

    async def _job_ended(self, message: Message) -> None:
        if not self._is_present_job(message):
            return
        await self._settle(message.content["jobId"])
        if message.message_type == "job.cancelled":
            self._end("failed", "cancelled", "The work was cancelled.")
        elif message.message_type == "job.failed":
            # The stage stays: a job that a person has retried may yet complete.
            error = message.content.get("error") or "The job failed."
            self._fail(f"{self.state.stage}_failed", _ERROR_NAME.sub("", error))
        else:
            result = JobResult.from_wire(message.content["result"])
            follow = {
                Stage.WORK: self._worked,
                Stage.REVIEW: self._reviewed,
                Stage.DELIVERY: self._delivered,
            }
            follow[self.state.stage](result)

    def _worked(self, result: JobResult) -> None:
        work = result.data.get("work")
        self.state.work = Work.model_validate(work) if work else None
        if result.outcome == "reported":
            report = result.artifacts[0].sha256 if result.artifacts else None
            self._end("completed", "reported", result.summary, report_artifact=report)
        elif result.outcome != "finished" or self.state.work is None:
            self._end("failed", result.outcome, result.summary)
        else:
            self.state.stage = Stage.REVIEW
            self._queue("review", self._about_work())
            self._move("processing")

    # Review

    def _reviewed(self, result: JobResult) -> None:
        opinion = ReviewOpinion.model_validate(result.data)
        refused = opinion.gates.verdict == "failed"
        unwanted = opinion.automated and opinion.automated.verdict == "request_changes"
        if (refused or unwanted) and self.state.bounces < BOUNCES_MAX:
            self.state.bounces += 1
            self._work("code", notes_of(opinion))
        elif refused:
            self._end("failed", "refused_by_gate", result.summary)
        else:
            self._ask_person(opinion)

    def _ask_person(self, opinion: ReviewOpinion) -> None:
        work = self._present_work
        self.state.review = Review(
            id=self.context.new_id("review"),
            issue_id=self._issue.id,
            job_id=work.job_id,
            organization_id=self.context.organization,
            artifact_hash=work.artifact_hash,
            patch_artifact=work.artifact_hash,
            summary=work.summary,
            gates=opinion.gates,
            automated=opinion.automated,
            requested_at=iso(self.context.now_ms()),
        )
        self.state.stage = Stage.APPROVAL
        self._change(review_id=self.state.review.id)
        self._put_review("requested")
        self._move("review")

    async def _review_decided(self, message: Message) -> None:
        review = self.state.review
        if self.state.stage is not Stage.APPROVAL or review is None:
            return
        content = message.content
        comment = (content.get("comment") or "")[:COMMENT_LENGTH_MAX]
        decision = ReviewDecision(artifact_hash=content["artifactHash"], comment=comment or None)
        status: Literal["approved", "rejected"] = "approved" if content["approved"] else "rejected"
        try:
            self.state.review = decide(
                review, decision, status, by=content["by"], at=iso(self.context.now_ms())
            )
        except (ReviewOutdatedError, ReviewClosedError) as error:
            logger.info("%s: %s", self.agent_id, error, extra={"action": "review.outdated"})
            return
        self._put_review(status)
        if status == "approved":
            self._deliver()
        elif comment and self.state.rejections < REJECTIONS_MAX:
            self.state.rejections += 1
            self.state.bounces = 0
            self._work("code", (Note(source="person", text=comment),))
        else:
            self._end("failed", "rejected", comment or "Rejected without a comment.")

    # Delivery

    def _deliver(self) -> None:
        self.state.stage = Stage.DELIVERY
        self._queue("delivery", self._about_work())
        self._move("processing")

    def _delivered(self, result: JobResult) -> None:
        where = {key: result.data.get(key) for key in ("branch", "commit")}
        self._end(
            "completed",
            "delivered",
            result.summary,
            pull_request_url=result.pull_request_url,
            **where,
        )

    # People

    async def _cancel(self, message: Message) -> None:
        if self.state.stage in (Stage.NEW, Stage.DONE):
            return
        if self.state.job is not None:
            self.context.send(SCHEDULER_ID, {"jobId": self.state.job}, "job.cancel")
        if self.state.stage is Stage.DELIVERY and self._issue.status != "failed":
            return  # it may be delivered already: the job's end says which
        if self.state.review is not None and self.state.review.status == "pending":
            self.state.review = self.state.review.model_copy(update={"status": "superseded"})
            self._put_review("superseded")
        self._end("failed", "cancelled", f"Cancelled by {message.content.get('by') or 'a person'}.")

    async def _spoken_to(self, message: Message) -> None:
        """A person says something: to the work under way, or to triage that has asked."""
        over = self.state.stage in (Stage.NEW, Stage.DONE)
        if over or self.state.messages >= MESSAGES_MAX:
            return
        content = message.content
        text, by = content["text"], content.get("by")
        self.state.messages += 1
        self.record("message", {"text": text, "by": by})
        self._publish("message", {"text": text, "by": by})
        if self.state.stage is Stage.ASKED:
            await self._answered(text, content.get("agentType"))
        elif self.state.stage is Stage.WORK and self.state.job is not None:
            self.state.told += 1
            signal = {
                "jobId": self.state.job,
                "name": f"message-{self.state.told}",
                "content": {"text": text, "by": by},
            }
            self.context.send(SCHEDULER_ID, signal, "job.signal")

    async def _answered(self, text: str, agent_type: str | None) -> None:
        """Triage had asked: the answer names the agent, or is more to classify."""
        if agent_type in ("code", "research"):
            self._work("code" if agent_type == "code" else "research")
            return
        self._change(description=f"{self._issue.description}\n\n{text}".strip())
        self._move("pending")
        await self._ask_triage()

    def _is_present_job(self, message: Message) -> bool:
        waiting = self.state.stage in (Stage.WORK, Stage.REVIEW, Stage.DELIVERY)
        return waiting and message.content["jobId"] == self.state.job

    def _about_work(self) -> Assignment:
        return Assignment(
            issue=self._issue,
            repository=self._present_work.repository,
            work=self._present_work,
            review=self.state.review if self.state.stage is Stage.DELIVERY else None,
        )


def _may_say(message: Message) -> bool:
    """Decisions are people's, through a client; word of jobs and triage is agents'."""
    if message.message_type.startswith("job."):
        return not is_client(message.sender)
    if message.message_type == "triage.classified":
        return kind_of(message.sender) == "triage"
    if message.message_type.startswith("review."):
        return is_client(message.sender)
    return True
