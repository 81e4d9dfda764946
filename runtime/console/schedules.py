"""/api/agents/{id}/schedule: when an agent runs by itself.  What became of its due times: `ledger`.

A schedule is changed by the scheduler alone: a route checks what was asked, so
that a wrong expression is answered with its place, and sends it on.  Reads come
from the documents.  An agent can have several schedules, told apart by `name`;
without one, `default` is meant.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Body, Query
from pydantic import AfterValidator, Field, StrictBool, ValidationError, model_validator
from starlette.responses import Response

from runtime.console.agents import AgentKey
from runtime.console.caller import Admin, Caller, Operator, Viewer
from runtime.console.command import NOT_YET, CommandAnswer, Why, WhyBody, command, done
from runtime.console.once import Idempotent, Once
from runtime.console.paging import Page, PageQuery, list_page, page
from runtime.console.problems import ProblemError, not_as_it_must_be
from runtime.ids import kind_of, split
from runtime.kinds import is_hosted
from runtime.schedule.record import (
    DEFAULT_NAME,
    SCHEDULES,
    Schedule,
    decode_schedule,
    decode_spec,
    schedule_key,
)
from runtime.schedule.spec import (
    BARE,
    NAME,
    PAYLOAD_BYTES_MAX,
    TRIGGERS,
    FieldError,
    ScheduleBody,
    fault_in,
    has_secret,
    in_order,
    spec_of,
)
from runtime.schedule.view import (
    ScheduleView,
    body_of,
    schedule_view,
)
from runtime.turn import to_json
from runtime.wire import WireModel

router = APIRouter(prefix="/api", tags=["schedules"])
NO_CLASS: Final = (
    "Nobody has given the hosts a class for agents of the kind `{kind}`: runs will fail until "
    "somebody does, from Python with connect().host(...)."
)
NEVER_DUE: Final = "Nothing is due by this schedule any more: its times are past."
_PATH: Final = "/agents/{agent_id}/schedule"
_Name = Annotated[str, Query(pattern=NAME, description="Which of the agent's schedules.")]


class PauseBody(Why):
    drain: StrictBool = False
    """Let the run that is executing end; without it 409 `executing`."""


def _readable(text: str) -> str:
    if fault := fault_in(text):
        raise ValueError(fault[1])
    return text


_Text = Annotated[str, AfterValidator(_readable)]


class EventBody(WireModel):
    """Something that happened outside, such as a push."""

    event: str = Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$", examples=["push"])
    repository: _Text | None = Field(None, max_length=500)
    branch: _Text | None = Field(None, max_length=250)
    default_branch: _Text | None = Field(None, max_length=250)
    commit: _Text | None = Field(None, max_length=64)
    data: dict[str, Any] = Field(default_factory=dict)
    """Goes into the jobs' payload, in `event`; at most 16 KiB."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(to_json(self.data)) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"the data of an event has at most {PAYLOAD_BYTES_MAX} bytes")
        if has_secret(self.repository or ""):
            raise ValueError(BARE)
        return self


class Triggered(CommandAnswer):
    occurrence_id: str | None = None


class Told(CommandAnswer):
    schedules: tuple[dict[str, Any], ...] = ()
    """{agentId, name, outcome} of each schedule that waits for the event."""


class SchedulesQuery(PageQuery):
    agent: str | None = Field(None, max_length=240)


# reading


@router.get("/schedules", response_model=Page[ScheduleView], summary="List schedules")
async def list_schedules(caller: Viewer, query: Annotated[SchedulesQuery, Query()]) -> Response:
    documents, cursor = await list_page(caller, SCHEDULES, query, query.filters(), descending=False)
    now_ms = caller.console.clock.now_ms()
    views = (schedule_view(decode_schedule(one.body), now_ms) for one in documents)
    return page((view.to_json() for view in views), cursor)


@router.get(_PATH, response_model=ScheduleView, summary="An agent's schedule")
async def get_schedule(agent_id: AgentKey, caller: Viewer, name: _Name = DEFAULT_NAME) -> Response:
    return _answer(caller, await _record(caller, agent_id, name))


# writing


@router.post(
    _PATH,
    response_model=ScheduleView,
    responses={201: {"model": ScheduleView, "description": "It is new"}, **NOT_YET},
    summary="Schedule an agent, or replace its schedule",
)
async def set_schedule(
    agent_id: AgentKey, body: ScheduleBody, caller: Operator, once: Idempotent
) -> Response:
    kind = kind_of(_agent(caller, agent_id))
    known = caller.console.kinds
    if known is None or kind in known or await is_hosted(caller.console.store, kind):
        return await _set(caller, once, agent_id, body, None)
    return await _set(caller, once, agent_id, body, None, NO_CLASS.format(kind=kind))


@router.patch(
    _PATH,
    response_model=ScheduleView,
    responses=NOT_YET,
    summary="Change parts of a schedule",
)
async def update_schedule(
    agent_id: AgentKey,
    body: Annotated[dict[str, Any], Body(examples=[{"cron": "0 7 * * *", "reason": "earlier"}])],
    caller: Operator,
    once: Idempotent,
    name: _Name = DEFAULT_NAME,
) -> Response:
    record = await _record(caller, agent_id, name)
    if body.get("name", name) != name:
        raise ProblemError(422, "not_changeable", "A schedule keeps its name; make another.")
    merged = merge(body_of(decode_spec(record.spec), name), body)
    return await _set(caller, once, agent_id, merged, record.revision)


def merge(before: ScheduleBody, changes: dict[str, Any]) -> ScheduleBody:
    """The body with some of it replaced; its name stays.

    Raises:
        ProblemError: 422, the whole is not as it must be.
    """
    kept = before.to_wire()
    if set(changes) & set(TRIGGERS):
        kept = {name: value for name, value in kept.items() if name not in TRIGGERS}
    caught = changes.get("catchUp")
    if isinstance(caught, dict):  # of it too, parts
        changes = {**changes, "catchUp": {**kept["catchUp"], **caught}}
    try:
        return ScheduleBody.model_validate({**kept, **changes, "name": before.name})
    except ValidationError as error:
        raise not_as_it_must_be(error.errors(), "body") from None


async def _set(
    caller: Caller,
    once: Once,
    agent_id: str,
    body: ScheduleBody,
    revision: int | None,
    warning: str | None = None,
) -> Response:
    agent = _agent(caller, agent_id)
    try:
        in_order(spec_of(body, agent, caller.console.clock.now_ms()))
    except FieldError as error:
        raise unreadable(error) from None
    content: dict[str, Any] = {
        "agentId": agent, "name": body.name, "schedule": body.to_wire(),
    }  # fmt: skip
    if body.reason:
        content["reason"] = body.reason
    if revision is not None:
        content["ifRevision"] = revision
    answer = await command(caller, once, "schedule.set", content)
    if answer is None:
        return done(None)
    record = await _record(caller, agent_id, body.name)
    if schedule_view(record, caller.console.clock.now_ms()).status == "ended":
        warning = warning or NEVER_DUE
    view = _answer(caller, record, warning)
    view.status_code = 201 if answer.get("created") else 200
    return view


def unreadable(error: FieldError) -> ProblemError:
    """422 with the code of what is wrong, and its place in the text."""
    found, path = error.error, f"body.{error.field}"
    errors = [{"path": path, "message": found.detail, "code": found.code}]
    members = {"position": found.position, "field": error.field}
    return ProblemError(422, found.code, found.detail, errors, members=members)


@router.delete(
    _PATH,
    status_code=204,
    responses=NOT_YET,
    summary="Take an agent off the schedule",
)
async def delete_schedule(
    agent_id: AgentKey,
    caller: Operator,
    once: Idempotent,
    name: _Name = DEFAULT_NAME,
    reason: Annotated[str | None, Query(max_length=500, description="Why.")] = None,
) -> Response:
    asked = _asked(caller, agent_id, name, Why(reason=reason))
    try:
        answer = await command(caller, once, "schedule.delete", asked)
    except ProblemError as refused:
        if refused.status != HTTPStatus.NOT_FOUND:
            raise
        return Response(status_code=204)  # it is gone, as was asked
    return done(None) if answer is None else Response(status_code=204)


@router.post(
    f"{_PATH}/pause", response_model=ScheduleView, summary="Start no more runs", responses=NOT_YET
)
async def pause_schedule(
    agent_id: AgentKey,
    caller: Admin,
    once: Idempotent,
    name: _Name = DEFAULT_NAME,
    drain: Annotated[bool, Query(description="Let the run that is executing end.")] = False,
    body: Annotated[PauseBody | None, Body()] = None,
) -> Response:
    more = {"drain": True} if drain or (body is not None and body.drain) else {}
    answer = await _ask(caller, once, "pause", agent_id, name, body, **more)
    return await _shown(caller, answer, agent_id, name)


@router.post(
    f"{_PATH}/resume",
    response_model=ScheduleView,
    summary="Let a paused schedule, or one in ERROR, run again",
    responses=NOT_YET,
)
async def resume_schedule(
    agent_id: AgentKey,
    caller: Admin,
    once: Idempotent,
    name: _Name = DEFAULT_NAME,
    body: WhyBody = None,
) -> Response:
    answer = await _ask(caller, once, "resume", agent_id, name, body)
    return await _shown(caller, answer, agent_id, name)


@router.post(f"{_PATH}/trigger", response_model=Triggered, summary="Run it now", responses=NOT_YET)
async def trigger_schedule(
    agent_id: AgentKey,
    caller: Operator,
    once: Idempotent,
    name: _Name = DEFAULT_NAME,
    body: WhyBody = None,
) -> Response:
    return done(await _ask(caller, once, "trigger", agent_id, name, body))


@router.post(
    "/schedules/events",
    response_model=Told,
    summary="Tell schedules of an event",
    responses=NOT_YET,
)
async def tell_event(body: EventBody, caller: Operator, once: Idempotent) -> Response:
    return done(await command(caller, once, "schedule.event", body.to_wire()))


# parts


def _agent(caller: Caller, agent_id: str) -> str:
    return split(caller.agent(agent_id))[1]


async def _record(caller: Caller, agent_id: str, name: str) -> Schedule:
    key = schedule_key(caller.principal.organization, _agent(caller, agent_id), name)
    return decode_schedule((await caller.own(SCHEDULES, key)).body)


def _answer(caller: Caller, record: Schedule, warning: str | None = None) -> Response:
    view = schedule_view(record, caller.console.clock.now_ms())
    if warning:
        view = view.model_copy(update={"warning": warning})
    return Response(view.to_json(), media_type="application/json")


async def _ask(
    caller: Caller,
    once: Once,
    verb: str,
    agent_id: str,
    name: str,
    body: Why | None,
    **more: Any,
) -> dict[str, Any] | None:
    if await once.kept(caller) is None:
        await _record(caller, agent_id, name)
    content = {**_asked(caller, agent_id, name, body), **more}
    return await command(caller, once, f"schedule.{verb}", content)


def _asked(caller: Caller, agent_id: str, name: str, body: Why | None) -> dict[str, Any]:
    """Of which schedule something is asked, and why."""
    why = body.to_content() if body else {}
    return {"agentId": _agent(caller, agent_id), "name": name, **why}


async def _shown(
    caller: Caller, answer: dict[str, Any] | None, agent_id: str, name: str
) -> Response:
    if answer is None:
        return done(None)
    return _answer(caller, await _record(caller, agent_id, name))
