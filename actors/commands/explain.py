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
from actors.commands.story import Material, Story, order, tell
from actors.commands.words import moment

HISTORY_MAX: Final = 2_000
STEPS_MAX: Final = 5_000
NOT_FOUND: Final = 404


@click.command(
    cls=TroupeCommand,
    examples=["troupe explain issue_01JD4W9GZ3N5", "troupe explain job_01JD4W9GZ3N5 --json"],
)
@click.argument("id")
async def explain(session: Session, id: str) -> None:
    """Tell the story of an issue or a job in plain sentences.

    What happened and when, why it waits or failed, what it cost, and what to
    do next: from its records, its journal and its messages.
    """
    async with session.api() as api:
        material = await gather(api, id)
    story = tell(material, datetime.now(UTC))
    if session.out.as_json:
        return session.out.result(asdict(story))
    say(session.out, story)


async def gather(api: Api, id: str) -> Material:
    """Everything there is to know of an issue, a job or a review."""
    if id.startswith("review_"):
        id = (await api.get(f"/api/reviews/{id}"))["issueId"]
    if id.startswith("job_"):
        job = await api.get(f"/api/jobs/{id}")
        return Material(jobs=[job], steps={id: await _items(api, f"/api/jobs/{id}/journal")})
    issue = await api.get(f"/api/issues/{id}")
    ids: list[str] = list(issue.get("jobIds", ()))
    jobs = order(await asyncio.gather(*(api.get(f"/api/jobs/{one}") for one in ids)))
    steps = await asyncio.gather(*(_items(api, f"/api/jobs/{one}/journal") for one in ids))
    return Material(
        issue=issue,
        jobs=jobs,
        steps=dict(zip(ids, steps, strict=True)),
        reviews=await _items(api, "/api/reviews", issue=id),
        history=await _items(api, f"/api/agents/issue:{id}/history"),
        messages=await _items(api, f"/api/agents/issue:{id}/messages"),
    )


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
