"""What is answered is what the API's description says of it: status, media type and members."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter

from runtime.console.app import Problem
from runtime.console.problems import MEDIA_TYPE
from runtime.errors import StoreUnavailableError
from runtime.ids import HOME
from runtime.keys import Role
from tests.http import ORGANIZATION, QUICK, HttpTroupe
from tests.unit.test_http_authorization import CASES, Case, Here, by_route, here

__all__ = ["here"]

COMMANDS = [
    case for case in CASES
    if case.writes and case.status in (200, 204, 409)
    and case.route.split("/")[2] in ("jobs", "agents", "schedules", "scheduler")
]  # fmt: skip


def check(api: HttpTroupe, method: str, path: str, answer: httpx2.Response) -> None:
    """The answer is one that the description has for the operation."""
    answers = api.app.openapi()["paths"][path][method.lower()]["responses"]
    error = answer.status_code >= 400
    declared = answers.get(str(answer.status_code), answers["default"] if error else None)
    assert declared is not None, f"{answer.status_code} is not described"
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    assert media_type in declared.get("content", {"": None})
    [route] = [
        one.route for one in iter_route_contexts(api.app.routes)
        if one.path == path and method in (one.methods or ())
    ]  # fmt: skip
    if error:
        Problem.model_validate_json(answer.content)
    elif media_type == "application/json":
        told = route.responses.get(answer.status_code, {})
        model = told.get("model", None if told.get("content") else route.response_model)
        if model is not None:
            TypeAdapter(model).validate_json(answer.content)


@by_route
async def test_an_answer_is_as_it_is_described(here: Here, case: Case) -> None:
    """A program made from the description would not read what it is answered."""
    method, path = case.route.split(" ")
    if path == "/api/events":
        return
    async with await here.api.client(Role.ADMIN, HOME if case.home else ORGANIZATION) as client:
        answer = await here.call(client, case)
    assert answer.status_code == case.status
    check(here.api, method, path, answer)


@pytest.fixture
async def alone(here: Here) -> AsyncIterator[Here]:
    """The same while no scheduler is there."""
    await here.troupe.kill_scheduler()
    state = here.api.app.state
    state.console = replace(state.console, settings=QUICK)
    yield here


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.route)
async def test_that_nobody_has_answered_yet_is_described(alone: Here, case: Case) -> None:
    """A program made from the description would take an accepted command for a failure."""
    method, path = case.route.split(" ")
    async with await alone.api.client(Role.ADMIN, HOME if case.home else ORGANIZATION) as client:
        answer = await alone.call(client, case)
    assert answer.status_code == 202
    check(alone.api, method, path, answer)


async def test_what_a_problem_tells_beside_the_usual_is_described(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program made from the description would fail at the place of a mistake, or at `parts`."""
    path = "/api/agents/{agent_id}/schedule"
    spec = here.api.app.openapi()["components"]["schemas"]["Problem"]
    assert {"position", "field"} <= spec["properties"].keys()
    assert spec["additionalProperties"] is True
    async with await here.api.client(Role.OPERATOR) as ann:
        wrong = await ann.post(path.format(agent_id="code:a"), json={"cron": "61 * * * *"})
    check(here.api, "POST", path, wrong)
    assert wrong.headers["content-type"] == MEDIA_TYPE
    assert Problem.model_validate_json(wrong.content).position == 0

    async def away() -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(here.api.store, "health", away)
    async with here.api.with_token(None) as nobody:
        check(here.api, "GET", "/api/ready", await nobody.get("/api/ready"))
