"""The authorization matrix: the API passes, and each hole that could be in it is found."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Request

from actors.verification.authorization import ORGANIZATION, QUICK, authorization, scene
from actors.verification.world import populate
from runtime.client import Client
from runtime.clock import SystemClock
from runtime.console.app import create_app
from runtime.console.caller import Operator, Viewer, console_of
from runtime.ids import Ids
from runtime.keys import Keys
from runtime.store.contract import ANY, Commit, Put
from runtime.store.memory import MemoryStore
from runtime.verify import authorization as matrix

holes = APIRouter(prefix="/api/holes")


@holes.get("/open")
async def asks_nobody() -> dict[str, str]:
    return {}


@holes.get("/{job_id}/shown")
async def shows_everybody(job_id: str, caller: Viewer, request: Request) -> Any:
    found = await console_of(request).store.get("issue", job_id.replace("job_", "issue_"))
    return {"body": found.body.decode() if found else ""}


@holes.post("/{job_id}/written")
async def writes_for_everybody(job_id: str, caller: Viewer, request: Request) -> Any:
    put = Put("job", job_id, ORGANIZATION, b"{}", (), ANY)
    await console_of(request).store.commit([Commit(ORGANIZATION, puts=(put,))])
    return {}


@holes.get("/{job_id}/guessed")
async def tells_what_exists(job_id: str, caller: Operator, request: Request) -> Any:
    from runtime.console.problems import ProblemError, not_found

    if await console_of(request).store.get("job", job_id):
        raise ProblemError(403, "not_yours", "It is another organization's.")
    raise not_found()


async def walked(*routers: APIRouter) -> list[str]:
    """What the matrix finds on an API that has these routes, too."""
    clock = SystemClock()
    ids, store = Ids(clock), MemoryStore(clock)
    app = create_app(store, clock, ids, routers, QUICK)
    there = await populate(Client(store, clock, ids, ORGANIZATION, "test"))
    known = (await scene()).ids | {"job_id": there.job.id}
    outcome = await matrix.authorization(
        matrix.Scene(app, store, Keys(store, clock), ORGANIZATION, known,
                     (await scene()).strange, (there.issue.title,), ("job",))
    )  # fmt: skip
    return outcome.details


def test_every_operation_of_the_api_holds_against_every_caller() -> None:
    """A route could be served that asks the wrong people, or nobody."""
    outcome = authorization()
    assert (outcome.details, outcome.good) == ([], True)
    assert outcome.figure["cells"] > 15 * outcome.figure["operations"]


async def test_an_api_without_a_hole_passes() -> None:
    """A matrix that cries wolf would be switched off."""
    assert await walked() == []


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/open", "asks nobody"),
        ("/{job_id}/shown", "shows a stranger"),
        ("/{job_id}/written", "changes something for a stranger"),
        ("/{job_id}/guessed", "tells a stranger which ids exist"),
    ],
)
async def test_each_hole_is_found(path: str, told: str) -> None:
    """A matrix that is blind would pass everything."""
    one = APIRouter()
    one.routes.extend(route for route in holes.routes if route.path.endswith(path))  # type: ignore[attr-defined]
    assert any(told in text for text in await walked(one))
