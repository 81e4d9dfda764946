"""Schedules under orders of events that random sequences have found; each shrunk to its core."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from runtime.errors import StoreUnavailableError
from runtime.ids import SCHEDULER
from runtime.job import AgentJob, JobStatus
from runtime.schedule.record import SCHEDULES, decode_schedule, schedule_key
from runtime.store.contract import Commit, Committed, Refused, Send
from runtime.store.memory import MemoryStore
from tests.plans import AGENT, Plans, planned


class Forgetful(MemoryStore):
    """Loses the first answer to a commit that changes a schedule because it was asked to."""

    lost = 0

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        answers = await super().commit(commits)
        asked = [one for one in commits if one.agent == SCHEDULER and one.acks]
        if not self.lost and any(put.collection == SCHEDULES for one in asked for put in one.puts):
            self.lost += 1
            raise StoreUnavailableError("lost after")
        return answers


class Startless(MemoryStore):
    """Can't write the start of any job, as one that is too large for it."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        if any(send.message_id.startswith("run:") for one in commits for send in one.sends):
            raise ValueError("too large")
        return await super().commit(commits)


async def statuses(plans: Plans) -> list[JobStatus]:
    return [job.status for job in await plans.jobs()]


@partial(planned, store=Forgetful)
async def test_a_schedule_of_which_an_answer_was_lost_goes_on(plans: Plans) -> None:
    """It would stand still until the next start of the scheduler, and nobody be told."""
    await plans.set(cron="* * * * *")
    assert plans.store.lost == 1  # type: ignore[attr-defined]
    await asyncio.sleep(200)
    assert await statuses(plans) == [JobStatus.COMPLETED] * 3


@planned
async def test_a_schedule_that_is_made_again_is_known_as_it_is_stored(plans: Plans) -> None:
    """What is decided of it first would be refused, and all others of its commit with it."""
    await plans.set(cron="* * * * *")
    assert (await plans.ask("delete"))["ok"]
    await plans.set(cron="* * * * *")
    document = await plans.client.get(SCHEDULES, schedule_key("acme", AGENT, "default"))
    assert document is not None
    assert document.revision > 1
    assert (await plans.entry()).doc_revision == document.revision


@planned
async def test_a_run_that_waits_outlives_its_schedule(plans: Plans) -> None:
    """Work that was under way would be cancelled as if it had never begun."""
    await plans.set(cron="* * * * *", payload={"rests": 300})
    await asyncio.sleep(90)
    assert await statuses(plans) == [JobStatus.WAITING]
    assert (await plans.ask("delete"))["ok"]
    await asyncio.sleep(300)
    assert await statuses(plans) == [JobStatus.COMPLETED]


@planned
async def test_what_a_run_has_cost_counts_for_what_waited_for_it(plans: Plans) -> None:
    """A schedule would go on over its budget for as long as something waits."""
    payload = {"seconds": 90, "costUsd": 0.6}
    await plans.set(cron="* * * * *", overlap="queue_one", payload=payload, budgetUsdPerDay=0.5)
    await asyncio.sleep(600)
    assert await statuses(plans) == [JobStatus.COMPLETED]
    assert (await plans.outcomes()).keys() == {"fired", "skipped_budget"}


@partial(planned, store=Startless)
async def test_a_schedule_does_not_wait_for_a_job_that_nobody_tells_has_ended(
    plans: Plans,
) -> None:
    """It would say that it executes, and skip each due time, until the next scheduler."""
    await plans.set(cron="* * * * *")
    await asyncio.sleep(200)
    record = await plans.record()
    assert (record.status, record.active) == ("error", ())
    assert await statuses(plans) == [JobStatus.FAILED]


@pytest.mark.parametrize("times", [1, 2])
def test_a_pause_right_after_a_resume_holds_what_the_one_before_held(times: int) -> None:
    """The job would start while its schedule is paused: it was told to go on already."""

    @planned
    async def test(plans: Plans) -> None:
        await plans.set(cron="* * * * *", payload={"seconds": 600})
        await plans.set(name="other", cron="0 0 1 1 *")
        await asyncio.sleep(90)
        fired = await plans.ask("trigger", name="other")  # the agent is busy: it is queued
        assert (await plans.ask("pause", name="other"))["ok"]
        await asyncio.sleep(1)
        await together(plans, ["resume", "pause"] * times)
        await asyncio.sleep(1_800)
        assert await status_of(plans, fired["jobId"]) is JobStatus.PAUSED
        assert (await plans.ask("pause", drain=True))["ok"]
        assert (await plans.ask("resume", name="other"))["ok"]
        await asyncio.sleep(1_800)
        assert await status_of(plans, fired["jobId"]) is JobStatus.COMPLETED

    test()


async def together(plans: Plans, verbs: Sequence[str]) -> None:
    """Ask for these one after the other, in one commit."""
    sends = []
    for verb in verbs:
        content: dict[str, Any] = {"agentId": AGENT, "name": "other", "by": "ann"}
        message = plans.client.message("scheduler:main", content, f"schedule.{verb}")
        sender = f"acme/{message.sender}"
        sends.append(Send(message.message_id, sender, SCHEDULER, message.to_json()))
    await plans.client.commit(sends=sends)


async def status_of(plans: Plans, job: str) -> JobStatus:
    document = await plans.client.get("job", job)
    assert document is not None
    return AgentJob.from_json(document.body).status


class Held(MemoryStore):
    """Writes a job's start no sooner than the pause of a schedule, as a network may have it."""

    paused: asyncio.Event | None = None
    """Set by the test from when on; by the store once the pause is written."""
    written: list[str]

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        starts = any(send.message_id.startswith("run:") for one in commits for send in one.sends)
        if starts and self.paused is not None:
            await self.paused.wait()
        answers = await super().commit(commits)
        for one, answer in zip(commits, answers, strict=True):
            if isinstance(answer, Committed) and self.paused is not None:
                self._note(one)
        return answers

    def _note(self, commit: Commit) -> None:
        assert self.paused is not None
        bodies = [put.body for put in commit.puts if put.collection == SCHEDULES and put.body]
        if any(decode_schedule(body).status == "paused" for body in bodies):
            self.written.append("paused")
            self.paused.set()
        if any(send.message_id.startswith("run:") for send in commit.sends):
            self.written.append("started")


async def sent(plans: Plans, *kinds: str) -> list[str]:
    """Ask all of this in one commit; the messages' ids."""
    about = {"agentId": AGENT, "by": "ann"}
    messages = [plans.client.message("scheduler:main", about, kind) for kind in kinds]
    await plans.client.commit(
        sends=[Send(one.message_id, f"acme/{one.sender}", SCHEDULER, one.to_json())
               for one in messages]
    )  # fmt: skip
    return [one.message_id for one in messages]


@partial(planned, store=Held)
async def test_a_paused_schedule_starts_nothing_however_late_a_start_is_written(
    plans: Plans,
) -> None:
    """A run would begin after whoever has paused its schedule was told that it is paused."""
    store = plans.store
    assert isinstance(store, Held)
    await plans.set(cron="0 0 1 1 *", payload={"seconds": 90})
    store.paused, store.written = asyncio.Event(), []
    fired, paused = await sent(plans, "schedule.trigger", "schedule.pause")
    assert (await plans.client.answer("scheduler:main", paused))["ok"]
    assert (await plans.client.answer("scheduler:main", fired))["ok"]
    await asyncio.sleep(5)
    assert store.written == ["paused"]
    assert await statuses(plans) == [JobStatus.PAUSED]
    assert (await plans.ask("resume"))["ok"]
    await asyncio.sleep(100)
    assert await statuses(plans) == [JobStatus.COMPLETED]


class Noting(MemoryStore):
    """Notes what the scheduler acknowledges, in order."""

    acks: list[str]

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        answers = await super().commit(commits)
        for one in commits:
            if one.agent == SCHEDULER:
                self.acks = [*getattr(self, "acks", ()), *(ack.message_id for ack in one.acks)]
        return answers


@pytest.mark.parametrize(
    "kinds",
    [("schedule.trigger", "agent.pause"), ("agent.pause", "schedule.trigger", "agent.resume")],
)
def test_what_one_sender_asks_is_done_in_its_order(kinds: tuple[str, ...]) -> None:
    """An agent that is paused after its schedule was triggered would be paused before."""

    @partial(planned, store=Noting)
    async def scenario(plans: Plans) -> None:
        await plans.set(cron="0 0 1 1 *")
        asked = await sent(plans, *kinds)
        await asyncio.sleep(5)
        assert isinstance(plans.store, Noting)
        assert [one for one in plans.store.acks if one in asked] == asked

    scenario()
