"""/api/scheduler: what the scheduler is doing, and stopping it as a whole.

The status is read from the store (the jobs' records, and what was last asked of
the scheduler), so that looking at it writes nothing and works while the
scheduler is being restarted.  It counts the jobs of every organization,
because the queue is one, and says nothing else of them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import JSONResponse, Response

from runtime.clock import iso
from runtime.console.caller import Caller, Keeper, Viewer
from runtime.console.command import NOT_YET, Why, WhyBody, command, done
from runtime.console.once import Idempotent, Once
from runtime.ids import HOME
from runtime.retention import ledger_since_ms
from runtime.standing import read_standing
from runtime.wire import WireModel

router = APIRouter(prefix="/api", tags=["scheduler"])


class StatusView(WireModel):
    """How the scheduler stands; the counts are of every organization's jobs."""

    state: Literal["IDLE", "RUNNING", "PAUSED", "ERROR"]
    draining: bool
    running: int
    queued: int
    waiting: int
    paused: int
    max_concurrent: int = Field(examples=[5])
    limits: dict[str, int] = Field(examples=[{"organization": 5, "repository": 0, "agent": 1}])
    """Jobs at once of one of each; 0: any number."""
    changed_by: str
    """Who has paused, drained or resumed it last; to others than `default`, that it was that."""
    changed_at: str
    reason: str
    owner: str
    """The process that took over last; `epoch` counts them."""
    epoch: int
    ledger_since: str | None = None
    """From when on the outcomes of due times are kept whole; absent while nothing was forgotten."""


class Controlled(StatusView):
    """How it stands once it was asked to stop or to go on."""

    accepted: Literal[True] = True


# the source documents know the second path
@router.get("/scheduler/status", response_model=StatusView, summary="State and queue")
@router.get("/agents/scheduler/status", response_model=StatusView, summary="State and queue")
async def get_status(caller: Viewer) -> Response:
    store = caller.console.store
    status, since_ms = await asyncio.gather(read_standing(store), ledger_since_ms(store))
    if since_ms:
        status["ledgerSince"] = iso(since_ms)
    if status["changedBy"] and not caller.principal.is_home:
        # who it was, and why, is that organization's business
        status |= {"changedBy": HOME, "reason": ""}
    return JSONResponse(status)


async def _ask(caller: Caller, once: Once, verb: str, why: Why | None) -> Response:
    content = why.to_content() if why else {}
    return done(await command(caller, once, f"scheduler.{verb}", content))


_CONTROL: Final[dict[str, Any]] = {"response_model": Controlled, "responses": NOT_YET}


@router.post("/scheduler/pause", summary="Start no more jobs", **_CONTROL)
async def pause(caller: Keeper, once: Idempotent, body: WhyBody = None) -> Response:
    return await _ask(caller, once, "pause", body)


@router.post("/scheduler/resume", summary="Start jobs again", **_CONTROL)
async def resume(caller: Keeper, once: Idempotent, body: WhyBody = None) -> Response:
    return await _ask(caller, once, "resume", body)


@router.post("/scheduler/drain", summary="Let running jobs end, start none", **_CONTROL)
async def drain(caller: Keeper, once: Idempotent, body: WhyBody = None) -> Response:
    return await _ask(caller, once, "drain", body)
