"""/api/scheduler: what the scheduler is doing, and stopping it as a whole.

The status is read from the store (the jobs' records, and what was last asked of
the scheduler), so that looking at it writes nothing and works while the
scheduler is being restarted.  It counts the jobs of every organization,
because the queue is one, and says nothing else of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from runtime.clock import iso
from runtime.console.caller import Caller, Keeper, Viewer
from runtime.console.command import CommandAnswer, Why, WhyBody, command, done
from runtime.console.once import Idempotent, Once
from runtime.ids import HOME
from runtime.retention import ledger_since_ms
from runtime.standing import read_standing

router = APIRouter(prefix="/api", tags=["scheduler"])


# the source documents know the second path
@router.get("/scheduler/status", response_model=dict[str, Any], summary="State and queue")
@router.get("/agents/scheduler/status", response_model=dict[str, Any], summary="State and queue")
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


@router.post("/scheduler/pause", response_model=CommandAnswer, summary="Start no more jobs")
async def pause(caller: Keeper, once: Idempotent, body: WhyBody = None) -> Response:
    return await _ask(caller, once, "pause", body)


@router.post("/scheduler/resume", response_model=CommandAnswer, summary="Start jobs again")
async def resume(caller: Keeper, once: Idempotent, body: WhyBody = None) -> Response:
    return await _ask(caller, once, "resume", body)


@router.post(
    "/scheduler/drain", response_model=CommandAnswer, summary="Let running jobs end, start none"
)
async def drain(caller: Keeper, once: Idempotent, body: WhyBody = None) -> Response:
    return await _ask(caller, once, "drain", body)
