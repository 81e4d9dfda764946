"""`troupe issues` and `troupe cancel`: what was handed in and how it stands."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from actors.commands.base import Session, TroupeCommand, TroupeGroup
from actors.commands.output import Output, status_text, visible
from actors.commands.words import age, cost, moment, reason, remedy
from actors.records import PRIORITIES

STATUSES = ("pending", "queued", "processing", "review", "completed", "failed")
LIMIT_MAX = 1_000


@click.group(cls=TroupeGroup, default="list")
def issues() -> None:
    """List issues, show one, or tell it something. Without a command: list."""


@issues.command("list", examples=["troupe issues", "troupe issues list --status review --limit 5"])
@click.option("--status", type=click.Choice(STATUSES), help="Only those of this status.")
@click.option("--type", "kind", help="Only those of this type.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Only those of this priority.")
@click.option("--module", help="Only those of this module.")
@click.option("-q", "--query", help="Only those with these words.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True)
async def list_(
    session: Session, limit: int, kind: str | None, query: str | None, **filters: Any
) -> None:
    """List issues, the newest first."""
    async with session.api() as api:
        found = await api.items("/api/issues", limit, type=kind, q=query, **filters)
    if session.out.as_json:
        return session.out.result(found)
    now = datetime.now(UTC)
    rows = [
        [i["id"], i["status"], i["priority"], i["type"], age(i["createdAt"], now), i["title"]]
        for i in found
    ]
    columns = ["ISSUE", "STATUS", "PRIORITY", "TYPE", "AGE", "TITLE"]
    session.out.table(columns, rows, 'No issues. Hand one in: troupe submit --repo . --title "..."')


@issues.command("show", examples=["troupe issues show issue_01JD4W9GZ3N5"])
@click.argument("id")
async def show(session: Session, id: str) -> None:
    """Show one issue: what it is, where it stands, what it cost."""
    async with session.api() as api:
        issue = await api.get(f"/api/issues/{id}")
    if session.out.as_json:
        return session.out.result(issue)
    say_issue(session.out, issue)


@issues.command(
    "tell",
    examples=[
        'troupe issues tell issue_01JD4W9GZ3N5 "keep the old function name"',
        'troupe issues tell issue_01JD4W9GZ3N5 "fix it" --agent code',
    ],
)
@click.argument("id")
@click.argument("text")
@click.option(
    "--agent", type=click.Choice(["code", "research"]), help="Who shall do it, when triage asks."
)
async def tell(session: Session, id: str, text: str, agent: str | None) -> None:
    """Say something to the agent at work on an issue, or answer triage's question."""
    body = {"text": text} | ({"agentType": agent} if agent else {})
    async with session.api() as api:
        path = f"/api/issues/{id}/messages"
        answer = await api.post(path, body, idempotency_key=secrets.token_hex(16))
    if session.out.as_json:
        return session.out.result(answer)
    status = f" It is {answer['status']} now." if answer.get("status") else ""
    session.out.say(f"{id}: it will be told.{status}")


@click.command(cls=TroupeCommand, examples=["troupe cancel issue_01JD4W9GZ3N5"])
@click.argument("id")
async def cancel(session: Session, id: str) -> None:
    """Cancel an issue or a job.

    What runs is stopped, with every process it has started; what was recorded stays.
    """
    kind = "jobs" if id.startswith("job_") else "issues"
    async with session.api() as api:
        answer = await api.post(f"/api/{kind}/{id}/cancel", idempotency_key=secrets.token_hex(16))
    if session.out.as_json:
        return session.out.result(answer)
    session.out.say(f"{id}: cancel is accepted. See: troupe explain {id}")


def say_issue(out: Output, issue: Mapping[str, Any]) -> None:
    """An issue in full."""
    context: Mapping[str, Any] = issue.get("context") or {}
    job: Mapping[str, Any] = issue.get("job") or {}
    classified: Mapping[str, Any] = issue.get("classification") or {}
    resolution: Mapping[str, Any] = issue.get("resolution") or {}
    because = issue.get("reason")
    out.say(visible(issue["title"]))
    out.pairs(
        [
            ("id", issue["id"]),
            ("status", status_text(issue["status"])),
            ("why", reason(because) if because else None),
            ("what to do", remedy(because or "", issue.get("jobId"))),
            ("type", issue["type"]),
            ("priority", issue["priority"]),
            ("module", context.get("module")),
            ("classified by", classified.get("classifier")),
            ("repository", context.get("repository")),
            ("base", context.get("baseRef")),
            ("job", issue.get("jobId")),
            ("progress", f"{job['progress']}%  {job.get('currentStep') or ''}" if job else None),
            ("review", issue.get("reviewId")),
            ("outcome", resolution.get("outcome")),
            ("branch", resolution.get("branch")),
            ("commit", resolution.get("commit")),
            ("pull request", resolution.get("pullRequestUrl")),
            ("cost", cost(issue)),
            ("created", moment(issue["createdAt"])),
            ("updated", moment(issue["updatedAt"])),
        ]
    )
    if issue.get("description"):
        out.say(f"\n{visible(issue['description'])}")
