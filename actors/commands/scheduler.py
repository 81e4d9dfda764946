"""`troupe scheduler`: the queue and all schedules as a whole; `default`'s admins may stop it."""

from __future__ import annotations

import secrets

import click

from actors.commands.base import Session, TroupeGroup
from actors.commands.words import scheduler_state


@click.group(cls=TroupeGroup, default="status")
def scheduler() -> None:
    """Stop the scheduler as a whole, and let it go on. Without a command: status."""


@scheduler.command("status", examples=["troupe scheduler", "troupe scheduler status --json"])
async def status(session: Session) -> None:
    """Show what it is doing, and who stopped it and why."""
    async with session.api() as api:
        found = await api.get("/api/scheduler/status")
    session.out.result(found) if session.out.as_json else session.out.say(scheduler_state(found))


def _verb(verb: str, summary: str) -> None:
    @scheduler.command(
        verb, help=summary, examples=[f'troupe scheduler {verb} --reason "release 7"']
    )
    @click.option("--reason", metavar="WHY", help="For the audit trail.")
    async def act(session: Session, reason: str | None) -> None:
        body = {"reason": reason} if reason else {}
        async with session.api() as api:
            answer = await api.post(f"/api/scheduler/{verb}", body, secrets.token_hex(16))
        if session.out.as_json:
            return session.out.result(answer)
        told = scheduler_state(answer) if "state" in answer else "It is accepted, not answered yet."
        return session.out.say(told)


_verb("pause", "Start no more jobs, of nobody; what is due meanwhile is skipped.")
_verb("drain", "Let running jobs end, start none; what is due meanwhile is skipped.")
_verb("resume", "Start jobs again; the next runs are computed anew.")
