"""POST /api/issues: an issue is accepted, once, in one commit.

    document  (`issue`, id)                           absent before
    document  (`external`, org/source/externalId)     absent before
    document  (`idempotency`, …)                      absent before, with a key
    message   `issue.submitted` to `issue:<id>`
    event     issue:created

What is accepted is durable and will be worked on; there is no state between.
The same external id again answers the issue that is there, with 200, whatever
else the body says.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body
from starlette.responses import Response

from actors.intake.payload import (
    Submitted,
    answer,
    external_key,
    queued,
    submitted_message,
)
from actors.intake.repository import check_base_ref, check_repository
from actors.intake.settings import IntakeSettings
from actors.intake.wait import estimated_wait
from actors.records import AgentIssue, IssueSubmission
from runtime.client import ConflictError, expect_absent
from runtime.clock import iso
from runtime.console.caller import Caller, Operator
from runtime.console.once import TRIES_MAX, Idempotent, Once, busy
from runtime.console.problems import ProblemError, invalid

QUEUED_MAX: Final = 1_000
"""Issues of one organization that wait to be worked on; more are refused."""
RETRY_AFTER_S: Final = 30

EXAMPLE: Final[dict[str, Any]] = {
    "source": "erp",
    "externalId": "brief-123",
    "type": "bug",
    "priority": "high",
    "title": "Brief PDF export failing for large documents",
    "description": "When exporting briefs with more than 50 pages...",
    "context": {
        "module": "briefs",
        "repository": "https://github.com/acme/briefs",
        "metadata": {"affectedUsers": ["user_123"]},
    },
}
Submission = Annotated[IssueSubmission, Body(examples=[EXAMPLE])]


class Desk:
    """Takes issues in, as the operator's settings allow."""

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings
        self.router = APIRouter(prefix="/api/issues", tags=["issues"])
        self.router.add_api_route(
            "",
            self.submit,
            methods=["POST"],
            status_code=202,
            response_model=Submitted,
            responses={200: {"model": Submitted, "description": "It was submitted before"}},
            summary="Submit an issue",
        )

    async def submit(self, body: Submission, caller: Operator, once: Idempotent) -> Response:
        """Accept an issue; see the module."""
        _check_words(caller, body)
        for _ in range(TRIES_MAX):
            kept = await once.kept(caller)
            if kept is not None:
                return _respond(Submitted.model_validate(kept["answer"]), 202)
            known = await self._known(caller, body)
            if known is not None:
                return _respond(known, 200)
            try:
                async with caller.console.gauge.place(caller.client, QUEUED_MAX) as is_free:
                    if not is_free:
                        raise _too_many()
                    return _respond(await self._accept(caller, once, body), 202)
            except ConflictError:
                continue  # somebody was quicker: the next look finds what they wrote
        raise busy()

    async def _known(self, caller: Caller, body: IssueSubmission) -> Submitted | None:
        """The answer for an external id that was submitted before."""
        key = external_key(caller.principal.organization, body)
        external = await caller.client.get("external", key) if key else None
        if external is None:
            return None
        ids = json.loads(external.body)
        document = await caller.own("issue", ids["issueId"])
        issue = AgentIssue.model_validate_json(document.body)
        return answer(issue, issue.job_id or ids["jobId"], await self._wait(caller))

    async def _accept(self, caller: Caller, once: Once, body: IssueSubmission) -> Submitted:
        named = body.context.repository
        repository = await check_repository(named, self._settings) if named is not None else None
        ids, organization = caller.console.ids, caller.principal.organization
        at = iso(caller.console.clock.now_ms())
        issue = queued(body, repository, ids.new("issue"), organization, at)
        job_id = ids.new("job")
        told = answer(issue, job_id, await self._wait(caller))
        writes = [expect_absent("issue", issue.id, issue.to_json(), issue.terms())]
        if key := external_key(organization, body):
            known = json.dumps({"issueId": issue.id, "jobId": job_id}).encode()
            writes.append(expect_absent("external", key, known))
        writes += once.writes(caller, {"answer": told.to_wire()})
        data = {"issueId": issue.id, "jobId": job_id, "status": issue.status, "title": issue.title}
        await caller.client.send(
            f"issue:{issue.id}",
            submitted_message(issue, job_id),
            "issue.submitted",
            message_id=f"submitted:{issue.id}",
            writes=writes,
            events=[caller.event("issue:created", data, f"issue:{issue.id}")],
        )
        return told

    async def _wait(self, caller: Caller) -> str:
        return estimated_wait(await caller.console.gauge.load(), self._settings.jobs_at_once)


def _check_words(caller: Caller, body: IssueSubmission) -> None:
    """What can be said against a body before anything is looked up."""
    if body.context.organization_id not in (None, caller.principal.organization):
        raise invalid(
            "body.context.organizationId",
            "foreign_organization",
            "The organization must be the key's own.",
        )
    if body.context.base_ref is not None:
        check_base_ref(body.context.base_ref)


def _too_many() -> ProblemError:
    return ProblemError(
        429,
        "too_many_issues",
        f"{QUEUED_MAX} issues are waiting already.",
        None,
        {"Retry-After": str(RETRY_AFTER_S)},
    )


def _respond(told: Submitted, status: int) -> Response:
    return Response(told.to_json(), status, media_type="application/json")
