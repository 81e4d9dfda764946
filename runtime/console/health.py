"""/api/health and /api/ready: is the process there, and can work be handed in.

Both answer without a key, and then say nothing but how things stand.  With a
key, health also says what holds the data and what of it survives.  Health stays
200 while the store is out (`degraded`): restarting this process would not help.

To accept work needs the store and nothing else: what is accepted waits durably
for a scheduler and a host.  So ready is 503 only while the store is out; that
the others are there is said, for whoever watches, and decides nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from msgspec import structs
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtime.console.caller import Console, console_of, principal_of
from runtime.console.problems import problem_of
from runtime.errors import StoreUnavailableError
from runtime.standing import read_alive
from runtime.store.contract import Health
from runtime.wire import WireModel

router = APIRouter(prefix="/api", tags=["health"])
State = Literal["up", "down", "unknown"]


class StoreView(WireModel):
    backend: str
    durability: str
    """What survives: `none`, `process kill`, `power loss`."""
    incarnation: str
    commits: int
    refused: dict[str, int]
    details: dict[str, str]


class HealthView(WireModel):
    status: Literal["ok", "degraded"]
    store: StoreView | None = None
    """Only with a key."""
    streams: int | None = None
    """Event streams open in this process; only with a key."""


class Parts(WireModel):
    """What it takes for work to be done."""

    store: State = Field(examples=["up"])
    """It answers, so work is accepted."""
    scheduler: State
    """It holds its lease, so accepted work is handed out."""
    hosts: State
    """At least one holds its lease, so it is worked on."""


class Ready(WireModel):
    status: Literal["ready"] = "ready"
    parts: Parts


@router.get("/health", response_model=HealthView, summary="Is it there")
async def health(request: Request) -> Response:
    console = console_of(request)
    store = await _health(console)
    view: dict[str, Any] = {"status": "ok" if store is not None else "degraded"}
    if principal_of(request) is not None and store is not None:
        known = structs.asdict(store)
        del known["owners"]
        view |= {"store": known, "streams": console.feed.readers}
    return JSONResponse(HealthView.model_validate(view).to_wire())


@router.get("/ready", response_model=Ready, summary="Can it accept work, and is somebody at it")
async def ready(request: Request) -> Response:
    try:
        alive = await read_alive(console_of(request).store)
    except StoreUnavailableError as error:
        problem = problem_of(error)
        assert problem is not None
        parts = Parts(store="down", scheduler="unknown", hosts="unknown")
        raise problem.also(parts=parts.to_wire()) from error
    parts = Parts(store="up", scheduler=_state(alive.scheduler), hosts=_state(alive.hosts > 0))
    return JSONResponse(Ready(parts=parts).to_wire())


def _state(there: bool) -> State:
    return "up" if there else "down"


async def _health(console: Console) -> Health | None:
    try:
        return await console.store.health()
    except StoreUnavailableError:
        return None
