"""`troupe explain`: what happened to an issue or a job, and why it stands where it stands."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.text import Text

from actors.commands.base import Session, TroupeCommand
from actors.commands.failures import RefusedError
from actors.commands.http import Api
from actors.commands.output import Output, visible
from actors.commands.stalled import stalled
from actors.commands.story import Material, Record, Story, order, tell
from actors.commands.words import moment, plural

HISTORY_MAX: Final = 2_000
STEPS_MAX: Final = 5_000
NOT_FOUND: Final = 404


@click.command(
    cls=TroupeCommand,
    examples=["troupe explain issue_01JD4W9GZ3N5", "troupe explain job_01JD4W9GZ3N5 --json"],
)
@click.argument("id")
async def explain(session: Session, id: str) -> None:
    """Tell the story of an issue, a job or a due time (`occ_…`) in plain sentences.

    What happened and when, why it waits or failed, what it cost, and what to
    do next: from its records, its journal and its messages.
    """
    if id.startswith("occ_"):
        return await due_time(session, id)
    async with session.api() as api:
        material = await gather(api, id)
    story = tell(material, datetime.now(UTC))
    if session.out.as_json:
        return session.out.result(asdict(story))
    say(session.out, story)


OUTCOMES: Final = {
    "fired": "its job was made",
    "coalesced": "a later due time ran for it",
    "skipped_overlap": "the run before had not ended",
    "skipped_paused": "it was paused",
    "skipped_unchanged": "nothing had changed in the repository since the last run",
    "skipped_budget": "the schedule had spent its budget of the day",
    "missed": "nobody was there at the time, and the policy did not ask to catch up",
    "superseded": "the schedule was changed or deleted while it waited",
}
WHYS: Final = {
    "error": "the schedule was in ERROR after a failed run",
    "scheduler_paused": "the scheduler as a whole was paused",
    "older_than_window": "it was older than the catch-up window",
    "beyond_cap": "newer ones filled the catch-up's cap",
    "queue_full": "as many as may wait were waiting",
    "tzdata": "a new release of tzdata came while it waited, and due times were computed anew",
}


async def due_time(session: Session, id: str) -> None:
    """What became of a due time of a schedule, and why."""
    async with session.api() as api:
        one = await api.get(f"/api/occurrences/{id}")
        job = await api.get(f"/api/jobs/{one['jobId']}") if one.get("jobId") else None
    if session.out.as_json:
        return session.out.result({"occurrence": one, "job": job})
    session.out.say(f"{one['agentId']}, schedule {one['name']}, revision {one['revision']}")
    due = f"due {moment(one['due'])}"
    if one["count"] > 1:
        due += f" to {moment(one['until'])}: {plural(one['count'], 'due time')}"
    session.out.say(f"{due}, decided {moment(one['decidedAt'])}")
    why = WHYS.get(one.get("reason") or "") or OUTCOMES.get(one["outcome"], one["outcome"])
    if one["cause"] == "manual":
        why = visible(f"{one.get('by')} had it run")
    elif one.get("late"):
        why = "it was caught up after nobody had been there"
    session.out.say(f"{one['outcome']}: {why}.")
    if job is not None:
        session.out.say(f"Its job {job['id']} is {job['status']}.")
        session.out.say(f"\nWhat to do next:\n  troupe explain {job['id']}")
    return None


async def gather(api: Api, id: str) -> Material:
    """Everything there is to know of an issue, a job or a review."""
    if id.startswith("review_"):
        id = (await api.get(f"/api/reviews/{id}"))["issueId"]
    if id.startswith("job_"):
        job = await _job(api, id)
        return Material(
            jobs=[job],
            steps={id: await _items(api, f"/api/jobs/{id}/journal")},
            sessions={id: await _sessions(api, job)},
        )
    issue = await api.get(f"/api/issues/{id}")
    ids: list[str] = list(issue.get("jobIds", ()))
    jobs = order(await asyncio.gather(*(_job(api, one) for one in ids)))
    steps = await asyncio.gather(*(_items(api, f"/api/jobs/{one}/journal") for one in ids))
    sessions = await asyncio.gather(*(_sessions(api, job) for job in jobs))
    return Material(
        issue=issue,
        jobs=jobs,
        steps=dict(zip(ids, steps, strict=True)),
        sessions=dict(zip((job["id"] for job in jobs), sessions, strict=True)),
        reviews=await _items(api, "/api/reviews", issue=id),
        history=await _items(api, f"/api/agents/issue:{id}/history"),
        messages=await _items(api, f"/api/agents/issue:{id}/messages"),
    )


async def _job(api: Api, id: str) -> dict[str, Any]:
    return await stalled(api, await api.get(f"/api/jobs/{id}"))


async def _sessions(api: Api, job: Record) -> list[Any]:
    """The job's runs, as far as they are among the newest of its agent."""
    agent = job.get("agentId") or f"{job['agentType']}:{job['id']}"
    found = await _items(api, f"/api/agents/{agent}/sessions")
    return [one for one in found if one["jobId"] == job["id"]]


async def _items(api: Api, path: str, **params: Any) -> list[Any]:
    """A list, empty where there is nothing yet."""
    try:
        return await api.items(path, STEPS_MAX if "journal" in path else HISTORY_MAX, **params)
    except RefusedError as error:
        if (error.problem or {}).get("status") == NOT_FOUND:
            return []
        raise


def say(out: Output, story: Story) -> None:
    """The story on a page."""
    out.say(Text(visible(story.title), style="bold"))
    out.say(f"{story.id}\n")
    for sentence in story.happened:
        line = Text(f"{moment(sentence.time):19s}  ", style="dim")
        out.say(line.append(visible(sentence.text), style="default"))
    out.say(f"\n{visible(story.now)}")
    out.say(f"It has cost {story.cost}.")
    if story.next:
        out.say("\nWhat to do next:")
    for command in story.next:
        out.say(f"  {visible(command)}")
