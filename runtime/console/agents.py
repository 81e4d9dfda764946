"""/api/agents: the organization's agents, their journals and their messages.

An agent need not exist to be written to: it comes to life with its first
message.  Message types with a dot are Troupe's own protocol (`review.decided`,
`job.run`) and can't be sent here, so nothing that a route guards, such as an
approval, can be had by writing the message oneself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Path, Query
from pydantic import Field, field_validator
from starlette.responses import JSONResponse, Response

from runtime.client import AskTimeoutError
from runtime.clock import iso
from runtime.console.caller import Caller, Operator, Viewer
from runtime.console.command import COMMAND, Why, WhyBody, command, done
from runtime.console.once import Idempotent
from runtime.console.paging import (
    LIMIT_MAX,
    Page,
    PageQuery,
    body_bytes,
    list_page,
    number_page,
    page,
)
from runtime.console.problems import not_found
from runtime.ids import Address, kind_of, split
from runtime.job import AgentJob, JobStatus
from runtime.jobs.holds import HOLDS, Hold
from runtime.journal import decode
from runtime.message import REDELIVERED
from runtime.schedule.record import SCHEDULES
from runtime.store.contract import ABSENT, Document, JournalEvent, StoredMessage
from runtime.turn import to_json
from runtime.wire import WireModel

Row = TypeVar("Row")

WAIT_S_MAX: Final = 30.0
RESERVED: Final = frozenset({"reply", "reminder"})
"""Message types without a dot that only agents and the runtime may send."""

AgentStatus = Literal["idle", "queued", "running", "waiting", "paused", "error"]
_STATUS: Final[dict[JobStatus, AgentStatus]] = {
    JobStatus.PENDING: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.WAITING: "waiting",
    JobStatus.PAUSED: "paused",
    JobStatus.FAILED: "error",
}

router = APIRouter(prefix="/api/agents", tags=["agents"])
AgentKey = Annotated[str, Path(max_length=240, examples=["code:job_01JD"])]
_Filter = Annotated[str | None, Field(max_length=64)]


class AgentsQuery(PageQuery):
    kind: _Filter = None
    role: _Filter = None
    status: AgentStatus | None = None


class HoldView(WireModel):
    """Why none of an agent's jobs starts."""

    by: str
    """Who has paused it: a person, or `scheduler`."""
    at: str
    reason: str | None = None
    """`failed_twice`: two of its jobs in a row have failed; else as a person has put it."""
    job_id: str | None = None
    """The job that failed last."""
    error: str | None = None
    """Its error."""


class AgentView(WireModel):
    """An agent as it is answered."""

    agent_id: str
    kind: str
    role: str
    capabilities: tuple[str, ...] = ()
    organization_id: str
    status: AgentStatus
    """`running` while a job of it runs, else that of its newest one; `idle` without one that is
    open; `paused` also while it is held."""
    job_id: str | None = None
    """Its newest job."""
    hold: HoldView | None = None
    """While it is paused: by whom, and why."""
    version: int | None = None
    created_at: str | None = None
    updated_at: str | None = None


class HistoryView(WireModel):
    """One event of an agent's journal."""

    version: int
    name: str
    data: Any = None
    patch: list[Any]
    schema_version: int
    at: str
    cause: str | None = None
    """Id of the message in whose turn it was recorded."""


class MessageView(WireModel):
    """A message with what became of it."""

    seq: int
    status: Literal["pending", "processed", "dead"]
    attempts: int
    accepted_at: str
    finished_at: str | None = None
    reply: Any = None
    error: str | None = None
    message: Any
    """The envelope of ADR-1."""


class MessageBody(WireModel):
    content: Any = Field(examples=[{"by": 2}])
    message_type: str = Field("standard", pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    metadata: dict[str, Any] | None = None

    @field_validator("message_type")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError("this type is the runtime's own")
        return value

    @field_validator("metadata")
    @classmethod
    def _not_ours(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and REDELIVERED in value:
            raise ValueError(f"`{REDELIVERED}` is the runtime's own")
        return value


class Accepted(WireModel):
    message_id: str
    accepted: Literal[True] = True


class Answered(WireModel):
    message_id: str
    reply: Any = None


class WaitQuery(WireModel):
    wait: float = Field(0.0, ge=0, le=WAIT_S_MAX)
    """Seconds to wait for the agent's answer."""


@router.get("", response_model=Page[AgentView], summary="List agents")
async def list_agents(caller: Viewer, query: Annotated[AgentsQuery, Query()]) -> Response:
    terms = {name: value for name, value in query.filters().items() if name != "status"}
    if query.status is None:
        documents, cursor = await list_page(caller, "agent", query, terms, descending=False)
        views = await asyncio.gather(*(_view(caller, one) for one in documents))
    else:
        views, cursor = await _with_status(caller, query, terms)
    return page((view.to_json() for view in views), cursor)


async def _with_status(
    caller: Caller, query: AgentsQuery, terms: dict[str, str]
) -> tuple[list[AgentView], str | None]:
    """One page of agents looked through for those of a status; it may be short."""
    wide = query.model_copy(update={"limit": LIMIT_MAX})
    documents, cursor = await list_page(caller, "agent", wide, terms, descending=False)
    views = await asyncio.gather(*(_view(caller, one) for one in documents))
    return [view for view in views if view.status == query.status], cursor


async def _view(caller: Caller, document: Document) -> AgentView:
    record = json.loads(document.body)
    known = {name: value for name, value in record.items() if name in _AGENT_FIELDS}
    agent = {"agent": record["agentId"]}
    newest = await caller.client.list("job", agent, limit=1)
    job = AgentJob.from_json(newest[0].body) if newest else None
    status = _STATUS.get(job.status, "idle") if job else "idle"
    if job is not None and job.agent_id is not None and status != "running":  # it has others, too
        runs = {**agent, "status": JobStatus.RUNNING.value}
        status = "running" if await caller.client.list("job", runs, limit=1) else status
    hold = await _hold(caller, document.key)
    if hold is not None and status != "running":
        status = "paused"
    return AgentView.model_validate(
        {
            "updatedAt": iso(document.updated_ms) if document.revision else None,
            **known,
            "status": status,
            "jobId": job.id if job else None,
            "hold": hold,
        }
    )


def _unborn(where: Address) -> Document:
    """An agent that has never lived: it has jobs or messages, and may be held."""
    organization, agent = split(where)
    about = {"agentId": agent, "kind": kind_of(agent), "role": "agent"}
    body = to_json({**about, "organizationId": organization})
    return Document(where, organization, ABSENT, body, (), 0)


async def _hold(caller: Caller, where: str) -> dict[str, Any] | None:
    """Who has paused an agent, and why; None while its jobs may start."""
    document = await caller.client.get(HOLDS, where)
    if document is None:
        return None
    hold = Hold.model_validate_json(document.body)
    told = {"by": hold.by, "at": hold.at, "reason": hold.reason}
    return {**told, "jobId": hold.job_id, "error": hold.error} if hold.held else None


_AGENT_FIELDS: Final = frozenset(
    field.alias or name for name, field in AgentView.model_fields.items()
) - {"status", "jobId", "hold"}


@router.get("/{agent_id}", response_model=AgentView, summary="One agent")
async def get_agent(agent_id: AgentKey, caller: Viewer) -> Response:
    where = await known(caller, agent_id)
    document = await caller.client.get("agent", where)
    view = await _view(caller, document or _unborn(where))
    return Response(view.to_json(), media_type="application/json")


@router.get(
    "/{agent_id}/history", response_model=Page[HistoryView], summary="An agent's journal, in order"
)
async def get_history(
    agent_id: AgentKey, caller: Viewer, query: Annotated[PageQuery, Query()]
) -> Response:
    read = caller.console.store.journal
    return await _listed(
        caller, "history", agent_id, query, read, lambda event: event.version, _history
    )


def _history(event: JournalEvent) -> HistoryView:
    recorded = decode(event.body)
    return HistoryView(
        version=event.version,
        name=event.name,
        data=recorded.data,
        patch=recorded.patch,
        schema_version=event.schema,
        at=iso(event.at_ms),
        cause=event.cause,
    )


@router.get(
    "/{agent_id}/messages",
    response_model=Page[MessageView],
    summary="What an agent was sent, in order, and what became of it",
)
async def get_messages(
    agent_id: AgentKey, caller: Viewer, query: Annotated[PageQuery, Query()]
) -> Response:
    read = caller.console.store.history
    return await _listed(
        caller, "messages", agent_id, query, read, lambda row: row.seq, _message, _message_bytes
    )


def _message_bytes(row: StoredMessage) -> int:
    return len(row.body) + len(row.reply or b"")


def _message(row: StoredMessage) -> MessageView:
    return MessageView(
        seq=row.seq,
        status=row.status,
        attempts=row.attempts,
        accepted_at=iso(row.accepted_ms),
        finished_at=iso(row.finished_ms) if row.finished_ms is not None else None,
        reply=json.loads(row.reply) if row.reply is not None else None,
        error=row.error,
        message=json.loads(row.body),
    )


async def known(caller: Caller, agent_id: str) -> Address:
    """The address of an agent of which there is anything, whether it has run or not; else 404."""
    where, store = caller.agent(agent_id), caller.console.store
    if await caller.client.get("agent", where) is not None:
        return where
    for collection in (SCHEDULES, "job"):
        if await caller.client.list(collection, {"agent": split(where)[1]}, limit=1):
            return where
    if await store.history(where, 0, 1) or await store.journal(where, 0, 1):
        return where
    raise not_found()


async def _listed(
    caller: Caller,
    what: str,
    agent_id: str,
    query: PageQuery,
    read: Callable[[str, int, int], Awaitable[Sequence[Row]]],
    place_of: Callable[[Row], int],
    view: Callable[[Row], WireModel],
    size_of: Callable[[Row], int] = body_bytes,
) -> Response:
    """A page of what an agent has in order."""
    where = await known(caller, agent_id)
    rows, cursor = await number_page(
        caller, f"{what} {where}", query, partial(read, where), place_of, size_of
    )
    return page((view(row).to_json() for row in rows), cursor)


@router.post(
    "/{agent_id}/messages",
    status_code=202,
    response_model=Accepted,
    responses={200: {"model": Answered, "description": "The agent's answer, with `wait`"}},
    summary="Send an agent a message",
)
async def send_message(
    agent_id: AgentKey,
    body: MessageBody,
    caller: Operator,
    once: Idempotent,
    query: Annotated[WaitQuery, Query()],
) -> Response:
    recipient = split(caller.agent(agent_id))[1]
    message_id = await once.send(caller, recipient, body.content, body.message_type, body.metadata)
    try:
        if query.wait > 0:
            reply = await caller.answer(recipient, message_id, query.wait)
            # the author's answer may be anything JSON can say
            content = to_json({"messageId": message_id, "reply": reply})
            return Response(content, 200, media_type="application/json")
    except AskTimeoutError:
        pass  # it is accepted all the same
    return JSONResponse(Accepted(message_id=message_id).to_wire(), 202)


async def _ask(
    caller: Caller, once: Idempotent, agent_id: str, verb: str, why: Why | None
) -> Response:
    agent = split(await known(caller, agent_id))[1]
    content = {"agentId": agent, **(why.to_content() if why else {})}
    answer = await command(caller, once, f"agent.{verb}", content)
    return done(answer, agentId=agent)


@router.post("/{agent_id}/pause", summary="Start no more jobs of an agent", **COMMAND)
async def pause_agent(
    agent_id: AgentKey, caller: Operator, once: Idempotent, body: WhyBody = None
) -> Response:
    return await _ask(caller, once, agent_id, "pause", body)


@router.post(
    "/{agent_id}/resume",
    summary="Start an agent's jobs again, also after two of them have failed",
    **COMMAND,
)
async def resume_agent(
    agent_id: AgentKey, caller: Operator, once: Idempotent, body: WhyBody = None
) -> Response:
    return await _ask(caller, once, agent_id, "resume", body)
