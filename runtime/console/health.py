"""/api/health and /api/ready: is the process there, and can it serve.

Both answer without a key, and then say nothing but the status.  With a key,
health also says what holds the data and what of it survives.  Health stays 200
while the store is out (`degraded`): restarting this process would not help.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from msgspec import structs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtime.console.caller import Console, console_of, principal_of
from runtime.errors import StoreUnavailableError
from runtime.message import WireModel
from runtime.store.contract import Health

router = APIRouter(prefix="/api", tags=["health"])


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


class Ready(WireModel):
    status: Literal["ready"] = "ready"


@router.get("/health", response_model=HealthView, summary="Is it there")
async def health(request: Request) -> Response:
    console = console_of(request)
    store = await _health(console)
    view: dict[str, Any] = {"status": "ok" if store is not None else "degraded"}
    if principal_of(request) is not None and store is not None:
        view |= {"store": structs.asdict(store), "streams": console.feed.readers}
    return JSONResponse(HealthView.model_validate(view).to_wire())


@router.get("/ready", response_model=Ready, summary="Can it serve")
async def ready(request: Request) -> Response:
    await console_of(request).store.health()
    return JSONResponse(Ready().to_wire())


async def _health(console: Console) -> Health | None:
    try:
        return await console.store.health()
    except StoreUnavailableError:
        return None
