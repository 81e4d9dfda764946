"""One repository under several spellings."""

from __future__ import annotations

import asyncio

import pytest

from runtime.job import AgentJob
from runtime.jobs.decisions import place_of
from runtime.plans.book import HEADS
from runtime.repository import repository_name
from runtime.store.contract import Commit, Put
from tests.plans import Plans, planned

PUSHED = "https://github.com/acme/api.git"
SPELLINGS = (
    PUSHED,
    "https://github.com/acme/api",
    "https://GitHub.com/acme/api/",
    "ssh://git@github.com:22/acme/api.git",
    "git@github.com:acme/api.git",
    "github.com:acme/api",
)


@pytest.mark.parametrize("location", (*SPELLINGS, "https://ann@github.com/acme/api.git/"))
def test_a_repository_has_one_name_however_it_is_spelled(location: str) -> None:
    """A schedule of a repository would never hear of a push to it."""
    assert repository_name(location) == "//github.com/acme/api"


@pytest.mark.parametrize(
    "other",
    [
        "https://github.com/acme/API",
        "https://github.com:8443/acme/api",
        "https://github.com/acme/api2",
        "https://git.example/acme/api",
        "/acme/api",
        "https://[github.com/acme/api",
    ],
)
def test_another_repository_has_another_name(other: str) -> None:
    """A push elsewhere would start what is not its own."""
    assert repository_name(other) != repository_name(PUSHED)
    assert repository_name(repository_name(other)) == repository_name(other)


def test_a_path_is_one_repository_with_and_without_its_protocol() -> None:
    """What is here would have two names."""
    for location in ("/srv/git/api.git", "/srv/git/api/", "file:///srv/git/api"):
        assert repository_name(location) == "/srv/git/api"


def test_the_limit_of_a_repository_is_not_evaded_by_another_spelling() -> None:
    """Two agents would be at work in one repository that allows one."""
    jobs = [
        AgentJob.new(
            id=f"job_{number}", organization_id="acme", agent_type="code", agent_id=None,
            now_ms=0, repository=location,
        )
        for number, location in enumerate(SPELLINGS)
    ]  # fmt: skip
    assert len({place_of(job).repository for job in jobs}) == 1


@planned
async def test_a_push_starts_the_schedule_of_its_repository(plans: Plans) -> None:
    """GitHub's clone URL ends with .git; who sets a schedule copies the browser's."""
    for number, location in enumerate(SPELLINGS):
        await plans.set(name=f"s{number}", event="push", repository=location, overlap="allow")
    push = {"event": "push", "repository": PUSHED, "commit": "abc"}
    answer = await plans.client.ask("scheduler:main", push, "schedule.event")
    assert len(answer["schedules"]) == len(SPELLINGS)


@planned
async def test_a_commit_is_known_whatever_its_repository_was_called(plans: Plans) -> None:
    """`onlyIfChanged` would look at a commit that nobody tells of any more."""
    stored = Put(HEADS, f"acme/{PUSHED}", "acme", b"abc")  # as it was kept under its location
    await plans.store.commit([Commit("acme", puts=(stored,))])
    await plans.troupe.kill_scheduler()
    plans.troupe.start_scheduler()
    schedule = {"cron": "*/10 * * * *", "repository": SPELLINGS[1], "onlyIfChanged": True}
    await plans.set(**schedule)
    await asyncio.sleep(1_800)
    assert (await plans.record()).seen_head == "abc"
    push = {"event": "push", "repository": SPELLINGS[-1], "commit": "def"}
    await plans.client.ask("scheduler:main", push, "schedule.event")
    await plans.troupe.kill_scheduler()
    plans.troupe.start_scheduler()
    await asyncio.sleep(1_200)
    outcomes = await plans.outcomes()
    assert (outcomes["fired"], outcomes["skipped_unchanged"]) == (2, 3)
    assert (await plans.record()).seen_head == "def"
