"""Why a queued job does not start: somebody's word, a limit, or that it is not its turn yet.

A job's own record says nothing of it.  So what may stop it is asked for, the
narrowest first, and told as one code of `words.REASONS`: its agent is held, the
scheduler is paused, as many jobs run as may, of its agent, its repository, its
key, its organization, or of everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from actors.commands.failures import RefusedError
from actors.commands.http import Api
from actors.commands.words import parse_time
from runtime.job import Priority
from runtime.schedule.queue import AGEING_MS

FAILED_TWICE = "failed_twice"
"""The runtime's reason of a hold that nobody asked for."""
LOOKED_AT_MAX: Final = 1_000
"""Jobs of the organization that are looked at."""
_LIMITED: Final = (
    ("agent", "agentId", "agent_full"),
    ("repository", "repository", "repository_full"),
    ("key", "limitKey", "limit_key_full"),
)
"""What of a job is limited -> the field that says which one, and the code."""


async def stalled(api: Api, job: Mapping[str, Any]) -> dict[str, Any]:
    """The job as it is told: if it is queued, with the reason for which it does not start.

    `ahead` is then how many queued jobs of its organization are before it.
    """
    if job["status"] != "pending" or job.get("reason") or _is_later(job):
        return dict(job)
    code = await _held(api, job)
    status = await api.get("/api/scheduler/status")
    code = code or {"PAUSED": "scheduler_paused", "ERROR": "scheduler_down"}.get(status["state"])
    if code:
        return {**job, "reason": code}
    running = await api.items("/api/jobs", LOOKED_AT_MAX, status="running")
    code = limited(job, running, status)
    if code is None:
        return dict(job)
    queued = await api.items("/api/jobs", LOOKED_AT_MAX, status="pending")
    return {**job, "reason": code, "ahead": ahead(job, queued)}


def limited(
    job: Mapping[str, Any], running: Iterable[Mapping[str, Any]], status: Mapping[str, Any]
) -> str | None:
    """The code of the limit that a job is stopped by; None: by none.

    Args:
        running: jobs of its organization.
        status: of the scheduler; its `limits` hold together, 0 is none.
    """
    limits, ours = status.get("limits", {}), list(running)
    for what, field, code in _LIMITED:
        same = sum(one.get(field) == job[field] for one in ours) if job.get(field) else 0
        if 0 < limits.get(what, 0) <= same:
            return code
    if 0 < limits.get("organization", 0) <= len(ours):
        return "organization_full"
    return "slots_full" if status["running"] >= status["maxConcurrent"] else None


def ahead(job: Mapping[str, Any], queued: Iterable[Mapping[str, Any]]) -> int:
    """How many of the queued jobs of an organization have their turn before this one.

    A job that waits AGEING_MS longer is as urgent as one of the next priority.
    """
    return sum(_place(one) < _place(job) for one in queued if not _is_later(one))


def _place(job: Mapping[str, Any]) -> tuple[float, str]:
    since = parse_time(job["queuedAt"]) or datetime.fromtimestamp(0, UTC)
    return since.timestamp() * 1000 + Priority(job["priority"]).rank * AGEING_MS, job["id"]


def _is_later(job: Mapping[str, Any]) -> bool:
    """Whether an attempt has failed and the next is not due yet: it is not in the queue."""
    return int(job.get("notBeforeMs") or 0) > datetime.now(UTC).timestamp() * 1000


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
