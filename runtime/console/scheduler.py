"""/api/scheduler: what the scheduler is doing, and stopping it as a whole."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from runtime.console.caller import Caller, Keeper, Viewer
from runtime.console.command import CommandAnswer, NoBody, command, done
from runtime.console.once import Idempotent, Once
from runtime.console.problems import unavailable

router = APIRouter(prefix="/api", tags=["scheduler"])


# the source documents know the second path
@router.get("/scheduler/status", response_model=dict[str, Any], summary="State and queue")
@router.get("/agents/scheduler/status", response_model=dict[str, Any], summary="State and queue")
async def get_status(caller: Viewer) -> Response:
    answer = await command(caller, Once.none(), "scheduler.status", {})
    if answer is None:
        raise unavailable("scheduler_silent", "The scheduler did not answer; try again.")
    return JSONResponse(answer)


async def _ask(caller: Caller, once: Once, verb: str) -> Response:
    return done(await command(caller, once, f"scheduler.{verb}", {}))


@router.post("/scheduler/pause", response_model=CommandAnswer, summary="Start no more jobs")
async def pause(caller: Keeper, once: Idempotent, body: NoBody = None) -> Response:
    return await _ask(caller, once, "pause")


@router.post("/scheduler/resume", response_model=CommandAnswer, summary="Start jobs again")
async def resume(caller: Keeper, once: Idempotent, body: NoBody = None) -> Response:
    return await _ask(caller, once, "resume")


@router.post(
    "/scheduler/drain", response_model=CommandAnswer, summary="Let running jobs end, start none"
)
async def drain(caller: Keeper, once: Idempotent, body: NoBody = None) -> Response:
    return await _ask(caller, once, "drain")
