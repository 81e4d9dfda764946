"""Eight issues at once: each ends as it should, none sees another, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.models.prices import SCRIPTED_MODEL
from tests.acceptance import leftovers, scenes
from tests.acceptance.department import ENDED, Department, department
from tests.acceptance.scenes import (
    ADDED_TEST,
    CANCELLED,
    COMMENT,
    FAILING,
    REJECTED,
    SENT_BACK,
    SOLVED,
    SPENT,
    STORIES,
    TOO,
    Story,
)
from tests.agents import git
from tests.scripted import Scripted, scripted_process
from tests.workshop import needs_sandbox, wait_until_ended

pytestmark = needs_sandbox
Json = dict[str, Any]
LIMIT = 5
"""Jobs at once, as production has it."""
SECONDS = 120.0
"""For all eight; they take 15 to 20 on two quiet cores."""
DELIVERED = (SOLVED, TOO, SENT_BACK, REJECTED)
KEPT = {"store.sock", "deliveries", "workspaces"}
"""Beside the database, all that may be in the data directory."""


async def test_eight_issues_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One issue's end would be another's, or work would leave something on the machine."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    repositories = scenes.repositories(tmp_path / "repositories")
    before = {name: leftovers.untouched(place) for name, place in repositories.items()}
    async with asyncio.timeout(SECONDS), running(tmp_path) as (troupe, server):
        ours = leftovers.descendants()
        ids = await file_all(troupe, repositories)
        await asyncio.gather(
            *(troupe.decide(ids[story.name], "approve", "Good.") for story in (SOLVED, TOO)),
            sent_back(troupe, ids[SENT_BACK.name]),
            rejected(troupe, ids[REJECTED.name]),
            cancelled(troupe, ids[CANCELLED.name], tmp_path / "data", ours),
        )
        found = {story.name: await settled(troupe, ids[story.name], story) for story in STORIES}
        for story in STORIES:
            await check_end(troupe, story, found[story.name])
            await check_apart(troupe, found[story.name], story)
        assert await troupe.side_by_side() == LIMIT
        jobs = [job.id for issue in ids.values() for job in await troupe.jobs(issue)]
        check_machine(tmp_path, ours, jobs)
        await check_calls(troupe, server)
    assert leftovers.open_files(tmp_path / "data") == []
    assert leftovers.locked(tmp_path) == []
    assert list(scratch.iterdir()) == []
    for name, place in repositories.items():
        assert leftovers.untouched(place) == before[name]
        check_branches(place, name, found)


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[tuple[Department, Scripted]]:
    async with scripted_process(root, scenes.script()) as server:
        await server.faults(scenes.OVERLOADED)
        environment = {
            "ANTHROPIC_BASE_URL": server.url,
            "TROUPE_MODEL": SCRIPTED_MODEL,
            "TROUPE_ROUNDS_MAX": str(scenes.ROUNDS_MAX),
        }
        async with department(root, environment) as troupe:
            yield troupe, server


async def file_all(troupe: Department, repositories: dict[str, Path]) -> dict[str, str]:
    """Every issue at the same time; issue ids by the stories' names."""
    ids = await asyncio.gather(
        *(troupe.submit(story.submission(repositories[story.repository])) for story in STORIES)
    )
    return dict(zip((story.name for story in STORIES), ids, strict=True))


# What people do meanwhile


async def sent_back(troupe: Department, issue: str) -> None:
    await troupe.decide(issue, "approve", "Now it is tested.")


async def rejected(troupe: Department, issue: str) -> None:
    await troupe.decide(issue, "reject", COMMENT)
    await troupe.decide(issue, "approve", "Now it says so.")


async def cancelled(troupe: Department, issue: str, data: Path, ours: set[int]) -> None:
    """Cancel while a command of its sleeps in the sandbox; the command ends with it."""

    async def asleep() -> tuple[bool, list[int]]:
        pids = leftovers.with_words(f"sleep {scenes.SLEEP}")
        return bool(pids), pids

    pids = await troupe.follow(asleep)
    [job] = await troupe.jobs(issue)
    # What is looked for at the end would be found now.
    assert leftovers.descendants() - ours
    assert leftovers.of_jobs([job.id]) or os.geteuid() != 0
    assert any(job.id in path for path in leftovers.open_files(data))
    assert any(job.id in str(path) for path in leftovers.locked(data))
    await troupe.post(f"/api/issues/{issue}/cancel")
    await asyncio.to_thread(wait_until_ended, pids)


# How they end


async def settled(troupe: Department, issue: str, story: Story) -> Json:
    """The issue, once its last job has let go."""

    async def look() -> tuple[bool, Json]:
        record = await troupe.get(f"/api/issues/{issue}")
        waits = story is FAILING and record.get("reason") is not None
        there = record["status"] in ENDED or waits
        job = await troupe.job(record["jobId"]) if there else None
        over = job is not None and (job.status.final or job.status == "waiting")
        return over, record

    return await troupe.follow(look)


async def check_end(troupe: Department, story: Story, record: Json) -> None:
    """Status, reason and outcome, of the issue and of its jobs."""
    assert (record["status"], record.get("reason")) == (story.status, story.reason), record
    jobs = await troupe.jobs(record["id"])
    assert [job.agent_type for job in jobs] == list(story.kinds)
    last = jobs[-1]
    if story is FAILING:
        assert (last.status, last.reason) == ("waiting", story.reason)
        assert last.not_before_ms > 0, "it goes on by itself"
        assert "resolution" not in record
        return
    outcome = "delivered" if story in DELIVERED else story.reason
    assert record["resolution"]["outcome"] == outcome
    wanted = "cancelled" if story is CANCELLED else "completed"
    assert {job.status for job in jobs} == {wanted}
    if story is not CANCELLED:
        assert last.result is not None
        assert last.result.outcome == outcome
    if story is CANCELLED:
        assert (await troupe.steps(last.id))[-1].result is None, "it was in the middle of a step"
    if story is SPENT:
        assert sum("model" in step.key for step in await troupe.steps(last.id)) == scenes.ROUNDS_MAX


async def check_apart(troupe: Department, record: Json, story: Story) -> None:
    """Nothing that its agents did, saw or made has to do with another issue."""
    for job in await troupe.jobs(record["id"]):
        for step in await troupe.steps(job.id):
            said = (step.intent + (step.result or b"")).decode()
            assert marks(said) <= {story.mark}, f"{story.name} {step.key}"
    if (patch := record.get("resolution", {}).get("patchArtifact")) is not None:
        change = (await troupe.content(patch)).decode()
        assert marks(change) == {story.mark}
    else:
        assert story in (FAILING, CANCELLED), "work that was done is kept"


def marks(text: str) -> set[str]:
    """Whose marks are in a text."""
    return {mark for mark in scenes.MARKS if mark in text}


async def check_calls(troupe: Department, server: Scripted) -> None:
    """Every whole answer is in the journal of one job."""
    jobs = await troupe.store.list_documents("job")
    steps = [step for job in jobs for step in await troupe.steps(job.key)]
    calls = [step.result or b"" for step in steps if step.key.endswith("model")]
    answers = [result for result in calls if b'"answer"' in result]
    assert len(answers) == (await server.calls())["complete"]


# What is left


def check_machine(root: Path, ours: set[int], jobs: list[str]) -> None:
    """Nothing of the jobs runs, is mounted or lies about, though the hosts are up."""
    assert leftovers.descendants() == ours
    assert leftovers.of_jobs(jobs) == []
    assert leftovers.groups() == []
    assert leftovers.mounts(root) == []
    data = root / "data"
    assert {path.name for path in data.iterdir() if "troupe.db" not in path.name} == KEPT
    assert list((data / "workspaces" / "jobs").iterdir()) == []
    mirrors = {path.suffix for path in (data / "workspaces" / "mirrors").iterdir()}
    assert mirrors == {".git", ".lock", ".use"}


def check_branches(place: Path, name: str, found: dict[str, Json]) -> None:
    """The deliveries are there with their own change only, and nothing else is."""
    made = {
        found[story.name]["resolution"]["branch"]: story
        for story in DELIVERED
        if story.repository == name
    }
    assert leftovers.branches(place) == {"main", *made}
    assert len(git(place, "worktree", "list").splitlines()) == 1
    for branch, story in made.items():
        tree = git(place, "grep", "-h", "-e", "", branch, "--")
        assert marks(tree) == {story.mark}
        assert (ADDED_TEST in tree) == (story is SENT_BACK)
        assert ("every price counts" in tree) == (story is REJECTED)
        assert git(place, "rev-list", "--count", f"main..{branch}") == "1"
    assert git(place, "grep", "-c", "-e", "sum(prices) - 1", "main", "--") != ""
