"""`troupe watch`: follow an issue or a job, or everything, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from contextlib import aclosing, nullcontext
from typing import Any

import click

from actors.commands.base import Session, TroupeCommand
from actors.commands.failures import TimedOutError, WrongUsageError
from actors.commands.following import QUESTION, Follower, Picture
from actors.commands.http import FOLLOW_PATIENCE_S, Api
from actors.commands.live import view
from actors.commands.output import Output, visible
from actors.commands.words import clock_time, cost, reason, remedy
from runtime.watching import OPENED, RESET, Event

EXIT_BY_OUTCOME = {"review": 0, "person": 0, "completed": 0, "failed": 1, "cancelled": 1}


@click.command(
    cls=TroupeCommand,
    examples=[
        "troupe watch issue_01JD4W9GZ3N5",
        "troupe watch job_01JD4W9GZ3N5 --timeout 600",
        "troupe watch --all --json",
    ],
)
@click.argument("id", required=False)
@click.option("--all", "everything", is_flag=True, help="Every event of the organization.")
@click.option("--timeout", "timeout_s", type=float, metavar="S", help="Give up after S seconds.")
async def watch(session: Session, id: str | None, everything: bool, timeout_s: float | None) -> int:
    """Follow an issue or a job until it ends or needs a person.

    Shows status, percent, step and cost, and the log as it is written; a
    connection that breaks is resumed where it was. Watching changes nothing:
    leave it at any time with Ctrl-C. With --all --json each line is an event;
    `reset` says that some before it are lost.

    Exit code 0 when the work is done or waits for a review, 1 when it failed.
    """
    if everything == (id is not None):
        raise WrongUsageError("Name an issue or a job, or say --all.", "troupe watch --help")
    async with session.api(FOLLOW_PATIENCE_S) as api:
        if id is None:
            return await follow_all(session.out, api, timeout_s)
        return await follow(session.out, api, await followable(api, id), timeout_s=timeout_s)


async def follow(
    out: Output, api: Api, id: str, *, quiet: bool = False, timeout_s: float | None = None
) -> int:
    """Show an issue or job until it stops, then what comes next; the exit code."""
    picture = await follow_to_stop(out, Follower(api, id, timeout_s), quiet=quiet)
    if out.as_json and quiet:
        out.result(dict(picture.record))
    say_end(out, picture)
    return EXIT_BY_OUTCOME[picture.outcome or "failed"]


async def follow_to_stop(
    out: Output, follower: Follower, *, quiet: bool = False, hopeless: Container[str | None] = ()
) -> Picture:
    """Show an issue or job until it stops, or waits for a `hopeless` reason; the last picture."""
    picture: Picture | None = None
    with nullcontext() if quiet else view(out) as shown:
        async with aclosing(follower.updates()) as updates:
            async for update in updates:
                picture = update.picture
                if shown is not None:
                    shown.show(update)
                if picture.reason in hopeless:
                    break
    assert picture is not None, "a follower gives at least one update"
    return picture


async def followable(api: Api, id: str) -> str:
    """What to follow for an id: a job's issue rather than the job, which is a part of it."""
    if id.startswith("job_"):
        job = await api.get(f"/api/jobs/{id}")
        return str(job.get("issueId") or id)
    if id.startswith("review_"):
        review = await api.get(f"/api/reviews/{id}")
        return str(review["issueId"])
    return id


def say_end(out: Output, picture: Picture) -> None:
    """Where the work has stopped and what a person can do now."""
    match picture.outcome:
        case "review":
            out.say(f"\n{picture.id} waits for your review: {picture.review_id}")
            out.say(f"  see it      troupe review show {picture.review_id}")
            out.say(f"  approve it  troupe review approve {picture.review_id}")
            out.say(f'  reject it   troupe review reject {picture.review_id} --comment "why"')
        case "person":
            why = reason(picture.reason or "needs_triage")
            out.say(f"\n{picture.id} needs a person: {visible(why)}")
            answer = f'troupe issues tell {picture.id} "..."'
            asked = picture.reason == QUESTION
            out.say(f"  answer    {answer}{'' if asked else ' --agent code   (or research)'}")
            out.say(f"  the story troupe explain {picture.id}")
        case "completed":
            _say_completed(out, picture)
        case _:
            why = visible(reason(picture.reason or picture.status))
            out.say(f"\n{picture.id} {picture.status}: {why}")
            out.say(remedy(picture.reason or "", picture.job_id) or "")
            out.say(f"  the whole story: troupe explain {picture.id}")


def _say_completed(out: Output, picture: Picture) -> None:
    resolution: dict[str, Any] = picture.record.get("resolution") or {}
    result: dict[str, Any] = picture.job.get("result") or {}
    out.say(f"\n{picture.id} is completed.")
    out.pairs(
        [
            ("  outcome", resolution.get("outcome") or result.get("outcome")),
            ("  summary", resolution.get("summary") or result.get("summary")),
            ("  branch", resolution.get("branch")),
            ("  commit", resolution.get("commit")),
            ("  pull request", resolution.get("pullRequestUrl")),
            ("  patch", (result.get("data") or {}).get("patchPath")),
            ("  report", resolution.get("reportArtifact")),
            ("  cost", cost({"costUsd": picture.cost_usd, "tokens": picture.tokens})),
        ]
    )


async def follow_all(out: Output, api: Api, timeout_s: float | None = None) -> int:
    """Show every event of the organization until somebody leaves.

    Raises:
        TimedOutError: `timeout_s` is over.
    """
    out.remark("Watching everything; leave with Ctrl-C.")
    try:
        async with asyncio.timeout(timeout_s), aclosing(api.events(["monitoring"])) as events:
            async for event in events:
                if event.name == RESET:
                    out.remark("The feed was restored from an older state; some events are lost.")
                if event.name != OPENED and (out.as_json or event.name != RESET):
                    _say_event(out, event)
    except TimeoutError:
        raise TimedOutError(
            f"Everything was watched for {timeout_s:g} s; it goes on.",
            "Watch again: troupe watch --all",
        ) from None
    return 0


def _say_event(out: Output, event: Event) -> None:
    data = dict(event.data)
    if out.as_json:
        out.result({"event": event.name, "cursor": event.cursor, "data": data})
        return
    time = clock_time(str(data.pop("timestamp", event.timestamp)))
    words = " ".join(f"{name}={visible(str(value))}" for name, value in data.items())
    out.say(f"{time}  {event.name:18s}  {words}")
