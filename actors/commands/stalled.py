"""Why a queued job does not start, where that is nobody's turn but somebody's word.

A job's own record says nothing of it: its agent is held, or the scheduler is
paused.  Both are asked for, and told as one code of `words.REASONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.commands.failures import RefusedError
from actors.commands.http import Api

FAILED_TWICE = "failed_twice"
"""The runtime's reason of a hold that nobody asked for."""


async def stalled(api: Api, job: Mapping[str, Any]) -> dict[str, Any]:
    """The job, with the reason for which it does not start, if it is queued and there is one."""
    if job["status"] != "pending" or job.get("reason"):
        return dict(job)
    code = await _held(api, job) or await _paused(api)
    return {**job, "reason": code} if code else dict(job)


async def _held(api: Api, job: Mapping[str, Any]) -> str | None:
    if not job.get("agentId"):
        return None
    try:
        hold = (await api.get(f"/api/agents/{job['agentId']}")).get("hold")
    except RefusedError:
        return None  # an agent that has never run is nowhere yet
    if hold is None:
        return None
    return "agent_failed_twice" if hold.get("reason") == FAILED_TWICE else "agent_paused"


async def _paused(api: Api) -> str | None:
    state = (await api.get("/api/scheduler/status"))["state"]
    return "scheduler_paused" if state == "PAUSED" else None
