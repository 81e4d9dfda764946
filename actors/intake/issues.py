"""GET /api/issues and what people say to an issue: cancel, messages.

Reads come from the issue's document, which its agent writes; words go to the
agent as messages, after the issue was found to be the caller's and still open.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from actors.intake.payload import has_words
from actors.records import AgentIssue, IssuePriority, IssueSource, IssueStatus, IssueType
from runtime.client import AskTimeoutError
from runtime.console.caller import Caller, Operator, Viewer
from runtime.console.command import NoBody
from runtime.console.once import Idempotent, Once
from runtime.console.paging import Page, PageQuery, list_page, page
from runtime.console.problems import ProblemError
from runtime.job import AgentJob, LogLine
from runtime.wire import WireModel

TEXT_LENGTH_MAX: Final = 10_000

router = APIRouter(prefix="/api/issues", tags=["issues"])
IssueKey = Annotated[str, Path(max_length=200, examples=["issue_01JD4W9GZ3N5"])]


class IssuesQuery(PageQuery):
    status: IssueStatus | None = None
    type: IssueType | None = None
    priority: IssuePriority | None = None
    module: str | None = Field(None, max_length=100)
    source: IssueSource | None = None
    q: str | None = Field(None, min_length=1, max_length=200)
    """Words that are all in its title, description or ids."""


class IssueJob(WireModel):
    """The job at work for an issue, or its last one."""

    id: str
    agent_type: str
    progress: int
    current_step: str | None = None
    logs: tuple[LogLine, ...] = ()


class IssueView(AgentIssue):
    """An issue with its job."""

    job: IssueJob | None = None
    """Absent until it is classified."""


class IssueMessage(WireModel):
    text: str = Field(min_length=1, max_length=TEXT_LENGTH_MAX)
    agent_type: Literal["code", "research"] | None = None
    """Who shall do the work, when triage has asked."""


class Told(WireModel):
    """What became of a message to an issue; `status` once its agent has answered."""

    id: str
    message_id: str
    accepted: Literal[True] = True
    status: IssueStatus | None = None
    reason: str | None = None


@router.get("", response_model=Page[AgentIssue], summary="List issues, newest first")
async def list_issues(caller: Viewer, query: Annotated[IssuesQuery, Query()]) -> Response:
    terms = {name: value for name, value in query.filters().items() if name != "q"}
    words = query.q
    if words is None:
        documents, cursor = await list_page(caller, "issue", query, terms)
    else:
        documents, cursor = await list_page(
            caller,
            "issue",
            query,
            terms,
            keep=lambda one: has_words(AgentIssue.model_validate_json(one.body), words),
        )
    return page((document.body for document in documents), cursor)


@router.get("/{issue_id}", response_model=IssueView, summary="One issue and its job")
async def get_issue(issue_id: IssueKey, caller: Viewer) -> Response:
    wire: dict[str, Any] = json.loads((await caller.own("issue", issue_id)).body)
    job = await caller.client.get("job", wire["jobId"]) if "jobId" in wire else None
    if job is not None:
        record = AgentJob.from_json(job.body)
        shown = IssueJob(
            id=record.id,
            agent_type=record.agent_type,
            progress=record.progress,
            current_step=record.current_step,
            logs=record.logs,
        )
        wire["job"] = shown.model_dump(mode="json", by_alias=True)
    return JSONResponse(wire)


_TOLD: Final[dict[str, Any]] = {
    "response_model": Told,
    "responses": {202: {"model": Told, "description": "Accepted, not answered yet"}},
}


@router.post("/{issue_id}/cancel", summary="Cancel an issue and its work", **_TOLD)
async def cancel_issue(
    issue_id: IssueKey, caller: Operator, once: Idempotent, body: NoBody = None
) -> Response:
    return await _tell(caller, once, issue_id, "issue.cancel", {})


@router.post("/{issue_id}/messages", summary="Say something to whoever works on it", **_TOLD)
async def tell_issue(
    issue_id: IssueKey, body: IssueMessage, caller: Operator, once: Idempotent
) -> Response:
    return await _tell(caller, once, issue_id, "issue.message", body.to_wire())


async def _tell(
    caller: Caller, once: Once, issue_id: str, message_type: str, content: dict[str, Any]
) -> Response:
    kept = await once.kept(caller)
    document = await caller.own("issue", issue_id)
    issue = AgentIssue.model_validate_json(document.body)
    if kept is None and issue.status in ("completed", "failed"):
        raise ProblemError(409, "issue_closed", f"The issue is {issue.status}.")
    agent = f"issue:{issue_id}"
    message_id = await once.send(caller, agent, {**content, "by": caller.by}, message_type)
    told = Told(id=issue_id, message_id=message_id)
    try:
        wait_s = caller.console.settings.command_wait_s
        said = await caller.answer(agent, message_id, wait_s) or {}
    except AskTimeoutError:
        return JSONResponse(told.to_wire(), 202)
    told = told.model_copy(update={"status": said.get("status"), "reason": said.get("reason")})
    return JSONResponse(told.to_wire())
