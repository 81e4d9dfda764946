"""`troupe jobs`: the queued units of work, and what may be done to one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import click

from actors.commands.base import Session, TroupeGroup
from actors.commands.following import Follower
from actors.commands.http import FOLLOW_PATIENCE_S
from actors.commands.output import Output, patch_text, status_text, visible
from actors.commands.stalled import stalled
from actors.commands.words import (
    age,
    clock_time,
    cost,
    duration,
    elapsed_s,
    moment,
    next_try,
    plural,
    reason,
    remedy,
)

ENDED = ("completed", "failed", "cancelled")
STATUSES = ("pending", "running", "waiting", "paused", *ENDED)
LIMIT_MAX = 1_000
JOURNAL_MAX = 1_000


@click.group(cls=TroupeGroup, default="list")
def jobs() -> None:
    """List jobs, show one, or pause, resume, cancel and retry it. Without a command: list."""


@jobs.command("list", examples=["troupe jobs", "troupe jobs list --issue issue_01JD4W9GZ3N5"])
@click.option("--status", type=click.Choice(STATUSES), help="Only those of this status.")
@click.option("--issue", help="Only those of this issue.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True)
async def list_(session: Session, status: str | None, issue: str | None, limit: int) -> None:
    """List jobs, the newest first."""
    async with session.api() as api:
        found = await api.items("/api/jobs", limit, status=status, issue=issue)
    if session.out.as_json:
        return session.out.result(found)
    now = datetime.now(UTC)
    rows = [
        [
            job["id"],
            job["status"],
            job.get("agentId") or job["agentType"],
            f"{job.get('progress', 0)}%",
            age(job["createdAt"], now),
            cost(job),
            job.get("currentStep") or job.get("reason") or "",
        ]
        for job in found
    ]
    columns = ["JOB", "STATUS", "AGENT", "DONE", "AGE", "COST", "STEP"]
    session.out.table(columns, rows, "No jobs.")


@jobs.command("show", examples=["troupe jobs show job_01JD4W9GZ3N5"])
@click.argument("id")
async def show(session: Session, id: str) -> None:
    """Show one job: its attempts, steps so far, cost and result."""
    async with session.api() as api:
        job = await api.get(f"/api/jobs/{id}")
        told = job if session.out.as_json else await stalled(api, job)
        artifacts = await api.items(f"/api/jobs/{id}/artifacts", JOURNAL_MAX)
    if session.out.as_json:
        return session.out.result({**job, "artifacts": artifacts})
    say_job(session.out, told, artifacts)


@jobs.command(
    "logs", examples=["troupe jobs logs job_01JD4W9GZ3N5", "troupe jobs logs -f job_01JD4W9GZ3N5"]
)
@click.argument("id")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job ends.")
async def logs(session: Session, id: str, following: bool) -> None:
    """Print the job's log lines; with --json one object a line."""
    async with (
        session.api(FOLLOW_PATIENCE_S) as api,
        aclosing(Follower(api, id).updates()) as updates,
    ):
        async for update in updates:
            for line in update.lines:
                if session.out.as_json:
                    session.out.result({"time": line.time, "message": line.message})
                session.out.say(f"{clock_time(line.time)}  {visible(line.message)}")
            if not following:
                break


@jobs.command(
    "diff",
    examples=["troupe jobs diff job_01JD4W9GZ3N5", "troupe jobs diff job_01JD4W9GZ3N5 | git apply"],
)
@click.argument("id")
async def diff(session: Session, id: str) -> None:
    """Print the change the job has made so far, as a patch."""
    async with session.api() as api:
        patch = await api.content(f"/api/jobs/{id}/diff")
    if session.out.as_json:
        return session.out.result({"jobId": id, "diff": patch_text(patch)})
    session.out.patch(patch)


def _verb(name: str, summary: str) -> None:
    @jobs.command(name, help=summary, examples=[f"troupe jobs {name} job_01JD4W9GZ3N5"])
    @click.argument("id")
    async def act(session: Session, id: str) -> None:
        async with session.api() as api:
            key = secrets.token_hex(16)
            answer = await api.post(f"/api/jobs/{id}/{name}", idempotency_key=key)
        if session.out.as_json:
            return session.out.result(answer)
        session.out.say(f"{id}: {name} is accepted. See: troupe jobs show {id}")


_verb("cancel", "Cancel the job: it stops between two steps, its processes with it.")
_verb("pause", "Pause the job between two steps; it holds no slot until it is resumed.")
_verb("resume", "Let a paused job go on from its last step.")
_verb("retry", "Queue a failed job again; recorded steps are not done twice.")


def say_job(out: Output, job: Mapping[str, Any], artifacts: list[dict[str, Any]]) -> None:
    """A job in full."""
    result: Mapping[str, Any] = job.get("result") or {}
    took_s = elapsed_s(job.get("startedAt"), job.get("completedAt"))
    because = job.get("reason")
    out.pairs(
        [
            ("id", job["id"]),
            ("status", status_text(job["status"])),
            ("why", reason(because) if because and because != job["status"] else None),
            ("ahead of it", _ahead(job)),
            ("what to do", _remedy(job)),
            ("error" if job["status"] in ENDED else "last error", job.get("error")),
            ("issue", job.get("issueId")),
            ("agent", job.get("agentId") or f"{job['agentType']}:{job['id']}"),
            ("priority", job["priority"]),
            ("attempt", _attempt(job)),
            ("next try", next_try(job)),
            ("progress", f"{job.get('progress', 0)}%  {job.get('currentStep') or ''}".rstrip()),
            ("cost", cost(job)),
            ("queued", moment(job["queuedAt"])),
            ("started", moment(job.get("startedAt"))),
            ("took", duration(took_s) if took_s is not None else None),
            ("outcome", result.get("outcome")),
            ("summary", result.get("summary")),
        ]
    )
    for artifact in artifacts:
        size = artifact.get("sizeBytes", 0)
        out.say(f"  {visible(artifact['name'])}  {size} bytes  sha256 {artifact['sha256']}")
    for log in job.get("logs", ()):
        out.say(f"{clock_time(log['time'])}  {visible(log['message'])}")


def _ahead(job: Mapping[str, Any]) -> str | None:
    """How many jobs have their turn before a queued one, where that was looked at."""
    count = job.get("ahead")
    return None if count is None else f"{plural(count, 'job')} of its organization"


def _attempt(job: Mapping[str, Any]) -> str:
    tried = str(job.get("attempts", 0))
    most = job.get("maxAttempts")  # absent until the first start: as many as the operator says
    return f"{tried} of {most}" if most else tried


def _remedy(job: Mapping[str, Any]) -> str | None:
    if job["status"] in ("completed", "cancelled"):
        return None
    return remedy(job.get("reason") or "", job["id"], job.get("agentId"))
