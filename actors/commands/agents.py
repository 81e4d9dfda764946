"""`troupe agents`: the durable agents, what they were sent, and a message of your own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

import click

from actors.commands.base import Session, TroupeGroup
from actors.commands.given import read_json
from actors.commands.output import status_text, visible
from actors.commands.stalled import FAILED_TWICE
from actors.commands.words import age, clock_time, cost, duration, moment, plural
from runtime.sessions import Status

STATUSES = ("idle", "queued", "running", "waiting", "paused", "error")
LIMIT_MAX = 1_000
CONTENT_SHOWN = 200
"""Characters of a message's content in a list; all of it with --json."""
WAIT_S_MAX = 30.0


@click.group(cls=TroupeGroup, default="list")
def agents() -> None:
    """List agents, show one, pause and resume its jobs, see its runs and messages, or send one.

    Without a command: list.
    """


@agents.command("list", examples=["troupe agents", "troupe agents list --kind code --json"])
@click.option("--kind", help="Only those of this kind (`code`, `issue`, ...).")
@click.option("--role", help="Only those with this role.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those of this status.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True)
async def list_(session: Session, limit: int, **filters: Any) -> None:
    """List agents by name."""
    async with session.api() as api:
        found = await api.items("/api/agents", limit, **filters)
    if session.out.as_json:
        return session.out.result(found)
    now = datetime.now(UTC)
    rows = [
        [a["agentId"], a["status"], a["role"], age(a.get("updatedAt"), now), a.get("jobId") or ""]
        for a in found
    ]
    columns = ["AGENT", "STATUS", "ROLE", "SEEN", "JOB"]
    session.out.table(columns, rows, "No agents yet.", whole=True)


@agents.command("show", examples=["troupe agents show code:job_01JD4W9GZ3N5"])
@click.argument("id")
async def show(session: Session, id: str) -> None:
    """Show one agent."""
    async with session.api() as api:
        agent = await api.get(f"/api/agents/{id}")
    if session.out.as_json:
        return session.out.result(agent)
    hold = agent.get("hold") or {}
    session.out.pairs(
        [
            ("id", agent["agentId"]),
            ("status", status_text(agent["status"])),
            ("why", _why(hold) if hold else None),
            ("error", hold.get("error")),
            ("what to do", f"troupe agents resume {agent['agentId']}" if hold else None),
            ("role", agent["role"]),
            ("capabilities", ", ".join(agent.get("capabilities", ()))),
            ("newest job", agent.get("jobId")),
            ("version", str(agent["version"]) if agent.get("version") is not None else None),
            ("created", moment(agent.get("createdAt"))),
            ("updated", moment(agent.get("updatedAt"))),
        ]
    )


def _why(hold: Mapping[str, Any]) -> str:
    """By whom an agent is paused, and why."""
    if hold.get("reason") == FAILED_TWICE:
        return f"two of its jobs in a row have failed, the last one {hold.get('jobId')}"
    said = f": {hold['reason']}" if hold.get("reason") else ""
    return f"{hold['by']} paused it {moment(hold['at'])}{said}"


def _verb(verb: str, summary: str) -> None:
    @agents.command(verb, help=summary, examples=[f"troupe agents {verb} backend:acme.api"])
    @click.argument("id")
    @click.option("--reason", metavar="WHY", help="For the audit trail.")
    async def act(session: Session, id: str, reason: str | None) -> None:
        async with session.api() as api:
            body = {"reason": reason} if reason else {}
            answer = await api.post(f"/api/agents/{id}/{verb}", body, secrets.token_hex(16))
        if session.out.as_json:
            return session.out.result(answer)
        session.out.say(f"{id}: {verb} is accepted. See: troupe agents show {id}")


_verb("pause", "Start no more of its jobs; what runs goes on.")
_verb("resume", "Let a paused agent's jobs start, also after two in a row have failed.")


@agents.command(
    "sessions",
    examples=[
        "troupe agents sessions backend:acme.api",
        "troupe agents sessions backend:acme.api --status failed",
    ],
)
@click.argument("id")
@click.option("--status", type=click.Choice(get_args(Status)), help="Only those that ended so.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True)
async def sessions(session: Session, id: str, status: str | None, limit: int) -> None:
    """List what an agent has executed, the newest first: each run of each of its jobs."""
    async with session.api() as api:
        found = await api.items(f"/api/agents/{id}/sessions", limit, status=status)
    if session.out.as_json:
        return session.out.result(found)
    rows = [
        [
            moment(one["startedAt"]),
            one["status"],
            duration(one["durationMs"] / 1000) if one.get("durationMs") is not None else "",
            cost(one),
            one["jobId"],
            _ended(one),
        ]
        for one in found
    ]
    columns = ["STARTED", "STATUS", "TOOK", "COST", "JOB", "ERROR"]
    session.out.table(columns, rows, "It has executed nothing.")


def _ended(run: Mapping[str, Any]) -> str:
    cuts = len(run.get("interrupted") or ())
    told = f"({plural(cuts, 'host')} died meanwhile)" if cuts else ""
    return f"{run.get('error') or ''} {told}".strip()


@agents.command("messages", examples=["troupe agents messages issue:issue_01JD4W9GZ3N5"])
@click.argument("id")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True)
async def messages(session: Session, id: str, limit: int) -> None:
    """List what an agent was sent, in order, and what became of each message."""
    async with session.api() as api:
        found = await api.items(f"/api/agents/{id}/messages", limit)
    if session.out.as_json:
        return session.out.result(found)
    rows = [
        [
            clock_time(row["acceptedAt"]),
            row["status"],
            row["message"]["sender"],
            row["message"]["messageType"],
            row.get("error") or json.dumps(row["message"].get("content"))[:CONTENT_SHOWN],
        ]
        for row in found
    ]
    session.out.table(["TIME", "STATUS", "FROM", "TYPE", "CONTENT"], rows, "No messages.")


@agents.command(
    "send",
    examples=[
        """troupe agents send counter:a increment '{"by": 2}' --wait 5""",
        "troupe agents send counter:a read",
    ],
)
@click.argument("id")
@click.argument("message_type")
@click.argument("content", required=False, default="{}")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, WAIT_S_MAX),
    default=0.0,
    metavar="S",
    help=f"Wait up to S seconds (at most {WAIT_S_MAX:g}) for the agent's answer.",
)
async def send(session: Session, id: str, message_type: str, content: str, wait_s: float) -> int:
    """Send an agent a message; CONTENT is JSON.

    The agent need not exist: it comes to life with its first message. The
    message is accepted when the command returns, whatever crashes afterwards.
    """
    value = read_json(content, "CONTENT", """Example: '{"by": 2}'""")
    body = {"messageType": message_type, "content": value}
    query = f"?wait={wait_s:g}" if wait_s else ""
    async with session.api() as api:
        path = f"/api/agents/{id}/messages{query}"
        answer = await api.post(path, body, idempotency_key=secrets.token_hex(16))
    if session.out.as_json:
        session.out.result(answer)
    elif "reply" in answer:
        session.out.say(visible(json.dumps(answer["reply"])))
    else:
        waited = f" No answer within {wait_s:g} s: troupe agents messages {id}" if wait_s else ""
        session.out.say(f"Accepted as {answer['messageId']}.{waited}")
    return 5 if wait_s and "reply" not in answer else 0
