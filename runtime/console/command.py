"""Commands: what HTTP asks of the scheduler, and how its refusals are answered.

A command is a durable message: once accepted it will be carried out, even when
the scheduler is not there to answer in time.  Whether the caller may ask is
decided before, at the route.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Body
from pydantic import Field
from starlette.responses import JSONResponse, Response

from runtime.client import AskTimeoutError
from runtime.console.caller import Caller
from runtime.console.once import Once
from runtime.console.problems import ProblemError
from runtime.ids import SCHEDULER_AGENT
from runtime.wire import WireModel


class Empty(WireModel):
    """A command has no body; `{}` is let pass."""


NoBody = Annotated[Empty | None, Body()]


class Why(WireModel):
    """Who asks is known; why, is for the audit trail."""

    reason: str | None = Field(None, max_length=500)

    def to_content(self) -> dict[str, Any]:
        """As it is said to the scheduler."""
        return {"reason": self.reason} if self.reason else {}


WhyBody = Annotated[Why | None, Body()]


class CommandAnswer(WireModel):
    """What the scheduler says it did; 202 when it has not said yet."""

    accepted: bool = True
    message_id: str | None = None
    job_id: str | None = None
    agent_id: str | None = None
    status: str | None = None
    """Of the job by now; of an agent `paused` or `resumed`."""


NOT_YET: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": CommandAnswer, "description": "Accepted, not answered yet"}
}
"""Of a route that has the scheduler do something: what it may answer as well."""
COMMAND: Final[dict[str, Any]] = {"response_model": CommandAnswer, "responses": NOT_YET}
"""Of one that answers what the scheduler says."""


async def command(
    caller: Caller, once: Once, message_type: str, content: dict[str, Any]
) -> dict[str, Any] | None:
    """Have the scheduler do something.

    Returns:
        Its answer, or None: accepted, not answered within `command_wait_s`.

    Raises:
        ProblemError: 404 or 409, it refused; nothing has changed.
    """
    asked = {**content, "organizationId": caller.principal.organization, "by": caller.by}
    message_id = await once.send(caller, SCHEDULER_AGENT, asked, message_type)
    wait_s = caller.console.settings.command_wait_s
    try:
        answer = await caller.answer(SCHEDULER_AGENT, message_id, wait_s)
    except AskTimeoutError:
        return None
    answer = dict(answer or {})
    if answer.pop("ok", False):
        return answer
    code = str(answer.get("code", "refused"))
    detail = str(answer.get("detail") or "The scheduler refused.")
    raise ProblemError(404 if code == "not_found" else 409, code, detail)


def done(answer: dict[str, Any] | None, **known: str) -> Response:
    """200 with what the scheduler said, or 202 when it has not said anything yet."""
    return JSONResponse(
        {**known, "accepted": True, **(answer or {})}, 202 if answer is None else 200
    )
