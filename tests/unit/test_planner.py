"""Schedules end to end in one process: set by message, fired on virtual time, accounted for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest

from runtime.client import Write
from runtime.job import AgentJob, JobStatus
from runtime.plans.planner import AHEAD_S, EARLY_MS
from runtime.plans.writer import Facts, Ready, fired, settled
from runtime.schedule.policy import Moment, settle
from runtime.schedule.record import (
    decode_revision,
    encode,
    schedule_key,
)
from runtime.scheduler import Scheduler
from runtime.store.contract import Commit, Committed, Refused
from runtime.verify.loop import run
from tests.plans import AGENT, MINUTE_MS, Plans, planned


@planned
async def test_a_cron_schedule_runs_its_agent_at_each_due_time(plans: Plans) -> None:
    """The scheduler would not do what it is for."""
    await plans.set(cron="*/5 * * * *", payload={"seconds": 1}, priority="HIGH")
    await asyncio.sleep(3_600)
    jobs = await plans.jobs()
    assert len(jobs) == 12
    assert {(job.status, job.agent_id, job.priority.value) for job in jobs} == {
        (JobStatus.COMPLETED, AGENT, "high")
    }
    ledger = await plans.ledger()
    assert [one.outcome for one in ledger] == ["fired"] * 12
    assert [one.job_id for one in ledger] == [job.id for job in jobs]
    assert [one.id for one in ledger] == [job.occurrence_id for job in jobs]
    assert {one.due_ms % (5 * MINUTE_MS) for one in ledger} == {0}
    assert max(one.late_ms for one in ledger) < 50


@planned
async def test_each_due_time_has_an_outcome_while_a_run_goes_on(plans: Plans) -> None:
    """A long run would leave due times that nobody can explain."""
    await plans.set(cron="* * * * *", payload={"seconds": 150})
    await asyncio.sleep(600)
    record, outcomes = await plans.record(), await plans.outcomes()
    assert outcomes.keys() == {"fired", "skipped_overlap"}
    assert outcomes.total() == (record.accounted_ms - record.created_ms) // MINUTE_MS + 1
    skipped = [one for one in await plans.ledger() if one.outcome == "skipped_overlap"]
    assert {one.count for one in skipped} == {2}
    assert all(one.to_ms == one.due_ms + MINUTE_MS for one in skipped)


@planned
async def test_queue_one_runs_what_waited_as_soon_as_the_run_ends(plans: Plans) -> None:
    """What was promised to wait would be skipped, or wait for the next due time."""
    await plans.set(cron="* * * * *", overlap="queue_one", payload={"seconds": 90})
    await asyncio.sleep(600)
    jobs = [job for job in await plans.jobs() if job.status is JobStatus.COMPLETED]
    ends = [job.completed_at for job in jobs]
    starts = [job.started_at for job in jobs]
    gaps = [_seconds(start) - _seconds(end) for end, start in zip(ends, starts[1:], strict=False)]
    assert len(jobs) >= 6
    assert max(gaps) < 1
    assert "skipped_overlap" in await plans.outcomes()


@planned
async def test_cancel_running_cancels_and_runs_the_newest(plans: Plans) -> None:
    """A run that hangs would keep every later one from starting."""
    await plans.set(cron="* * * * *", overlap="cancel_running", payload={"seconds": 100_000})
    await asyncio.sleep(600)
    jobs = await plans.jobs()
    assert len(jobs) >= 9
    assert {job.status for job in jobs[:-1]} == {JobStatus.CANCELLED}
    assert (await plans.outcomes()).keys() == {"fired"}


@planned
async def test_allow_runs_beside_and_queue_all_one_after_the_other(plans: Plans) -> None:
    """The two would be told apart by nothing."""
    await plans.set(cron="*/5 * * * *", overlap="allow", payload={"seconds": 700})
    await plans.set(name="all", cron="*/5 * * * *", overlap="queue_all", payload={"seconds": 400})
    await asyncio.sleep(3_600)
    assert (await plans.outcomes()).keys() == {"fired"}
    waiting = (await plans.record("all")).waiting
    assert len(waiting) >= 1
    assert [one.due_ms for one in waiting] == sorted(one.due_ms for one in waiting)
    assert len((await plans.record()).active) >= 2


@planned
async def test_a_short_absence_of_the_scheduler_is_no_miss(plans: Plans) -> None:
    """Each restart of the scheduler would cost runs."""
    await plans.set(interval="every 10 seconds", overlap="allow")
    await asyncio.sleep(35)
    await plans.troupe.kill_scheduler()
    await asyncio.sleep(45)
    plans.troupe.start_scheduler()
    await asyncio.sleep(21)
    ledger = await plans.ledger()
    assert {one.outcome for one in ledger} == {"fired"}
    dues = [one.due_ms for one in ledger]
    assert dues == list(range(dues[0], dues[0] + 10_000 * len(dues), 10_000))
    assert len(dues) >= 9


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ({"policy": "latest"}, {"missed": 1_440 * 29, "coalesced": 1_440, "fired": 1}),
        ({"policy": "none"}, {"missed": 1_440 * 30}),
        ({"policy": "all", "cap": 5}, {"missed": 1_440 * 30 - 5, "fired": 6}),
    ],
    ids=lambda value: value.get("policy"),
)
def test_thirty_days_away_are_settled_at_once_and_run_at_most_the_cap(
    catch_up: dict[str, Any], expected: dict[str, int]
) -> None:
    """An outage would be followed by a storm, or by a scheduler that is busy with the past."""

    async def main() -> None:
        plans = Plans()
        await plans.troupe.start()
        await plans.set(cron="* * * * *", catchUp=catch_up)
        await plans.troupe.kill_scheduler()
        plans.clock.step(30 * 86_400)
        began = time.process_time()
        plans.troupe.start_scheduler()
        await asyncio.sleep(20)
        assert time.process_time() - began < 2
        record, outcomes = await plans.record(), await plans.outcomes()
        assert not record.waiting
        assert outcomes.total() == (record.accounted_ms - record.created_ms) // MINUTE_MS + 1
        for outcome, count in expected.items():
            assert abs(outcomes[outcome] - count) <= 1, outcomes
        caught_up = [one for one in await plans.ledger() if one.late]
        assert len(caught_up) <= catch_up.get("cap", 1)
        assert outcomes["fired"] <= len(caught_up) + 1
        assert len(await plans.ledger()) < 20
        await plans.troupe.stop()

    run(main())


@planned
async def test_a_paused_schedule_starts_nothing_and_accounts_for_it(plans: Plans) -> None:
    """A pause would leave a hole, or not be one."""
    await plans.set(cron="* * * * *")
    await asyncio.sleep(180)
    assert (await plans.ask("pause", reason="release"))["ok"]
    before = len(await plans.jobs())
    await asyncio.sleep(600)
    assert len(await plans.jobs()) == before
    assert (await plans.record()).reason == "release"
    assert (await plans.ask("pause"))["code"] == "not_active"
    assert (await plans.ask("trigger"))["code"] == "not_active"
    assert (await plans.ask("resume"))["ok"]
    await asyncio.sleep(120)
    assert len(await plans.jobs()) == before + 2
    [paused] = [one for one in await plans.ledger() if one.outcome == "skipped_paused"]
    assert (paused.count, paused.reason) == (10, "paused")


@planned
async def test_a_schedule_that_executes_is_paused_only_with_drain(plans: Plans) -> None:
    """Would break a rule of the source documents, or leave operators without a way."""
    await plans.set(cron="* * * * *", payload={"seconds": 90})
    await asyncio.sleep(70)
    assert (await plans.ask("pause"))["code"] == "executing"
    answer = await plans.ask("pause", drain=True)
    assert answer["ok"]
    assert len(answer["running"]) == 1
    await asyncio.sleep(300)
    [job] = await plans.jobs()
    assert job.status is JobStatus.COMPLETED
    assert not (await plans.record()).active


@planned
async def test_a_job_in_the_queue_is_held_while_its_schedule_is_paused(plans: Plans) -> None:
    """A paused schedule would start a run when a slot becomes free."""
    home = plans.troupe.client("default")
    await plans.set(cron="0 0 1 1 *")
    for number in range(6):
        await plans.set(name=f"long{number}", cron="* * * * *", payload={"seconds": 1_000})
    await asyncio.sleep(70)
    fired = await plans.ask("trigger")
    await asyncio.sleep(1)
    assert (await plans.ask("pause"))["ok"]
    await asyncio.sleep(3_000)
    document = await home.store.get("job", fired["jobId"])
    assert document is not None
    assert AgentJob.from_json(document.body).status is JobStatus.PAUSED
    for number in range(6):
        assert (await plans.ask("pause", name=f"long{number}", drain=True))["ok"]
    assert (await plans.ask("resume"))["ok"]
    await asyncio.sleep(6_000)
    document = await home.store.get("job", fired["jobId"])
    assert document is not None
    assert AgentJob.from_json(document.body).status is JobStatus.COMPLETED


@planned
async def test_the_pause_of_the_scheduler_is_every_schedules(plans: Plans) -> None:
    """The operator's pause would leave due times unexplained, or run them all afterwards."""
    home = plans.troupe.client("default")
    await plans.set(cron="* * * * *")
    await asyncio.sleep(120)
    before = len(await plans.jobs())
    await home.ask("scheduler:main", {}, "scheduler.pause")
    await asyncio.sleep(600)
    assert len(await plans.jobs()) == before
    await home.ask("scheduler:main", {}, "scheduler.resume")
    await asyncio.sleep(120)
    assert len(await plans.jobs()) == before + 2
    [paused] = [one for one in await plans.ledger() if one.outcome == "skipped_paused"]
    assert (paused.count, paused.reason) == (10, "scheduler_paused")


@planned
async def test_a_schedule_whose_job_failed_is_off_until_it_is_resumed(plans: Plans) -> None:
    """A broken agent would be run for ever, or its recovery need a new schedule."""
    await plans.set(cron="*/10 * * * *", payload={"fails": True}, maxAttempts=1)
    await asyncio.sleep(3_600)
    record = await plans.record()
    assert (record.status, record.runs, record.failures) == ("error", 1, 1)
    assert "can't be done" in (record.error or "")
    outcomes = await plans.outcomes()
    assert (outcomes["fired"], outcomes["skipped_paused"]) == (1, 5)
    assert (await plans.ask("resume", reason="mended"))["ok"]
    await asyncio.sleep(600)
    assert (await plans.record()).runs == 2


@planned
async def test_an_edit_begins_a_new_revision_where_the_old_one_ends(plans: Plans) -> None:
    """Due times of before would be told with the meaning of afterwards."""
    await plans.set(cron="* * * * *", overlap="queue_all", payload={"seconds": 1_000})
    await asyncio.sleep(300)
    made = await plans.record()
    assert len(made.waiting) >= 2
    assert (await plans.set(cron="0 * * * *"))["revision"] == 2
    edited = await plans.record()
    assert (edited.waiting, edited.id) == ((), made.id)
    assert (await plans.outcomes())["superseded"] == len(made.waiting)
    found = await plans.client.list("schedule_revision", descending=False)
    first, second = (decode_revision(one.body) for one in found)
    assert first.from_ms == made.created_ms
    assert second.from_ms >= max(one.to_ms or one.due_ms for one in await plans.ledger())
    assert (await plans.set(cron="0 * * * *"))["revision"] == 2


@planned
async def test_a_deleted_schedule_never_runs_and_a_new_one_is_another(plans: Plans) -> None:
    """Occurrences of two schedules would be taken for one another."""
    await plans.set(cron="* * * * *")
    await asyncio.sleep(120)
    before, runs = await plans.record(), len(await plans.jobs())
    assert (await plans.ask("delete"))["ok"]
    await asyncio.sleep(300)
    assert len(await plans.jobs()) == runs
    assert (await plans.ask("delete"))["code"] == "not_found"
    await plans.set(cron="* * * * *")
    assert (await plans.record()).id != before.id
    [closed] = [
        decode_revision(one.body)
        for one in await plans.client.list("schedule_revision")
        if one.key.startswith(before.id)
    ]
    assert closed.to_ms is not None
    assert closed.to_ms >= before.accounted_ms


@planned
async def test_a_trigger_runs_now_and_no_due_time_is_lost_by_it(plans: Plans) -> None:
    """Running by hand would cost a due time, or count as one."""
    await plans.set(cron="0 * * * *", payload={"seconds": 60})
    answer = await plans.ask("trigger", reason="look")
    assert answer["ok"]
    await asyncio.sleep(1)
    assert (await plans.ask("trigger"))["code"] == "executing"
    await asyncio.sleep(2 * 3_600)
    ledger = await plans.ledger()
    assert [one.cause for one in ledger] == ["manual", "time", "time"]
    assert ledger[0].job_id == answer["jobId"]
    assert ledger[0].by == "ann"


@planned
async def test_a_push_runs_who_waits_for_it_and_tells_what_it_was(plans: Plans) -> None:
    """Agents that follow a repository would look at the clock instead."""
    await plans.set(event="push", repository="https://git/x", branch="main")
    await plans.set(name="other", event="push", repository="https://git/y")
    push = {"event": "push", "repository": "https://git/x", "branch": "main", "commit": "abc"}
    answer = await plans.client.ask("scheduler:main", push, "schedule.event")
    assert answer["schedules"] == [{"agentId": AGENT, "name": "default", "outcome": "fired"}]
    await asyncio.sleep(1)
    [job] = await plans.jobs()
    assert job.payload["event"]["commit"] == "abc"
    elsewhere = {**push, "branch": "topic"}
    assert (await plans.client.ask("scheduler:main", elsewhere, "schedule.event"))[
        "schedules"
    ] == []


@planned
async def test_nothing_runs_while_nothing_has_changed(plans: Plans) -> None:
    """A department would pay for looking at the same commit every five minutes."""
    push = {"event": "push", "repository": "https://git/x", "branch": "main", "commit": "abc"}
    await plans.set(cron="*/10 * * * *", repository="https://git/x", onlyIfChanged=True)
    await plans.client.ask("scheduler:main", push, "schedule.event")
    await asyncio.sleep(1_800)
    await plans.client.ask("scheduler:main", {**push, "commit": "def"}, "schedule.event")
    await asyncio.sleep(1_200)
    outcomes = await plans.outcomes()
    assert (outcomes["fired"], outcomes["skipped_unchanged"]) == (2, 3)


@planned
async def test_what_is_made_beforehand_is_not_of_another_commit(plans: Plans) -> None:
    """A push between the making and the due time would be forgotten by the run that follows."""
    push = {"event": "push", "repository": "https://git/x", "branch": "main", "commit": "abc"}
    await plans.set(cron="*/10 * * * *", repository="https://git/x")
    await plans.client.ask("scheduler:main", push, "schedule.event")
    entry = await plans.entry()
    while not isinstance(entry.ready, Ready):
        await asyncio.sleep(0.1)
    assert entry.ready.record.seen_head == "abc"
    await plans.client.ask("scheduler:main", {**push, "commit": "def"}, "schedule.event")
    await asyncio.sleep(AHEAD_S + 1)
    assert (await plans.outcomes())["fired"] == 1
    assert (await plans.record()).seen_head == "def"


@planned
async def test_what_is_made_beforehand_does_not_outlive_a_pause(plans: Plans) -> None:
    """A schedule that is paused in the last two seconds would start all the same."""
    await _made_beforehand(plans)
    assert (await plans.ask("pause", reason="release"))["ok"]
    await asyncio.sleep(AHEAD_S + 1)
    assert await plans.jobs() == []


@planned
async def test_what_is_made_beforehand_does_not_outlive_a_run(plans: Plans) -> None:
    """A schedule that is triggered in the last two seconds would run beside itself."""
    await _made_beforehand(plans)
    assert (await plans.ask("trigger"))["ok"]
    await asyncio.sleep(AHEAD_S + 1)
    assert len(await plans.jobs()) == 1


async def _made_beforehand(plans: Plans) -> None:
    """Set a schedule and wait until its first due time is prepared."""
    await plans.set(cron="*/10 * * * *", payload={"seconds": 60})
    entry = await plans.entry()
    while not isinstance(entry.ready, Ready):
        await asyncio.sleep(0.1)


async def _decided_early(plans: Plans, **schedule: Any) -> AgentJob:
    """Set a schedule and wait until its first due time is in the ledger; the job of it."""
    await plans.set(**{"cron": "*/10 * * * *", **schedule})
    while not (jobs := await plans.jobs()):
        await asyncio.sleep(0.05)
    [job], [one] = jobs, await plans.ledger()
    assert (one.outcome, one.job_id, one.late_ms) == ("fired", job.id, 0)
    assert one.at_ms < one.due_ms == job.not_before_ms <= one.at_ms + EARLY_MS
    return job


def _ms(text: str | None) -> int:
    assert text is not None
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@planned
async def test_a_run_is_durable_before_it_is_due_and_starts_on_time(plans: Plans) -> None:
    """A thousand that are due together would wait until the store has written them all."""
    await asyncio.sleep(15)  # whoever waits for messages has just begun to
    job = await _decided_early(plans)
    assert (job.status, job.attempts) == (JobStatus.PENDING, 0)
    await asyncio.sleep(EARLY_MS / 1000 + 0.1)
    [then] = await plans.jobs()
    assert 0 <= _ms(then.started_at) - job.not_before_ms <= 20
    assert _ms(then.queued_at) == job.not_before_ms


@planned
async def test_the_lateness_of_a_schedule_is_that_of_its_start(plans: Plans) -> None:
    """The metric would say that all is well while what was decided early waits in vain."""
    scheduler = plans.troupe.scheduler
    assert scheduler is not None
    await _decided_early(plans)
    assert _late(scheduler) == {}
    async with scheduler._dispatcher._deciding:  # a round that takes its time
        await asyncio.sleep(EARLY_MS / 1000 + 0.4)
    await asyncio.sleep(0.1)
    late = _late(scheduler)
    assert late["_count"] == 1
    assert 0.4 <= late["_sum"] <= 0.46


def _late(scheduler: Scheduler) -> dict[str, float]:
    """What the lateness of schedules has come to since the last look."""
    samples = scheduler._meter.drain()
    return {
        one.suffix: one.value
        for one in samples
        if one.metric.name == "troupe_schedule_late_seconds" and one.suffix != "_bucket"
    }


@planned
async def test_what_was_decided_early_runs_once_whoever_dies(plans: Plans) -> None:
    """A scheduler that dies in the last half second would take a run along, or make two of it."""
    job = await _decided_early(plans)
    await plans.troupe.kill_scheduler()
    plans.troupe.start_scheduler()
    await asyncio.sleep(60)
    [then] = await plans.jobs()
    assert (then.id, then.status) == (job.id, JobStatus.COMPLETED)
    assert 0 <= _ms(then.started_at) - job.not_before_ms <= 50
    assert (await plans.outcomes()) == {"fired": 1}


@planned
async def test_what_was_decided_early_is_held_by_a_pause(plans: Plans) -> None:
    """A schedule that is paused in the last half second would start all the same."""
    job = await _decided_early(plans)
    assert (await plans.ask("pause", reason="release"))["ok"]
    await asyncio.sleep(300)
    assert [one.status for one in await plans.jobs()] == [JobStatus.PAUSED]
    assert (await plans.ask("resume"))["ok"]
    await asyncio.sleep(1)
    assert [(one.id, one.status) for one in await plans.jobs()] == [(job.id, JobStatus.COMPLETED)]


@planned
async def test_what_was_decided_early_does_not_outlive_its_schedule(plans: Plans) -> None:
    """A schedule that was deleted would start once more."""
    await _decided_early(plans)
    assert (await plans.ask("delete", name="default"))["ok"]
    await asyncio.sleep(2)
    assert [one.status for one in await plans.jobs()] == [JobStatus.CANCELLED]


@planned
async def test_a_change_after_the_decision_is_for_the_next_due_time(plans: Plans) -> None:
    """A change in the last half second would run a due time twice, or drop it."""
    job = await _decided_early(plans, payload={"version": 1})
    await plans.set(cron="*/10 * * * *", payload={"version": 2})
    await asyncio.sleep(605)
    first, second = await plans.jobs()
    assert (first.id, first.payload) == (job.id, {"version": 1})
    assert second.payload == {"version": 2}
    dues = [one.due_ms for one in await plans.ledger()]
    assert dues == [job.not_before_ms, job.not_before_ms + 10 * MINUTE_MS]


@planned
async def test_a_due_time_that_depends_on_the_moment_is_decided_when_it_comes(plans: Plans) -> None:
    """What could still be another commit's, or too dear, would be decided too early."""
    await plans.set(cron="*/10 * * * *", repository="https://git/x", onlyIfChanged=True)
    await plans.set(name="dear", cron="*/10 * * * *", budgetUsdPerDay=1.0)
    while not await plans.jobs():
        await asyncio.sleep(0.05)
    assert all(one.at_ms >= one.due_ms for one in await plans.ledger())


@planned
async def test_what_is_made_beforehand_is_what_would_be_made_then(plans: Plans) -> None:
    """A due time would be accounted for in another way when there was no time to prepare."""
    await plans.set(cron="*/10 * * * *", payload={"seconds": 1}, priority="high")
    entry = await plans.entry()
    while not isinstance(entry.ready, Ready):
        await asyncio.sleep(0.1)
    now_ms = entry.ready.run.occurrence.at_ms + 7
    before, due_ms = fired(entry, entry.ready, now_ms), entry.ready.run.due_ms
    fates = settle(entry.spec, (), [due_ms], Moment(now_ms))
    change = settled(
        entry, entry.record, fates, Facts(now_ms), first_ms=due_ms, accounted_ms=due_ms,
        next_ms=due_ms + 10 * MINUTE_MS,
    ).finish()  # fmt: skip
    assert before.record == change.record
    assert before.fired_ms == change.fired_ms
    then = {put.collection: put for put in change.puts}
    for put in before.puts:
        if put.collection == "job":  # it says when it was queued: at its time
            assert put.key == then["job"].key
        else:
            assert put == then[put.collection]


@planned
async def test_late_runs_are_paced_and_no_organization_waits_for_another(plans: Plans) -> None:
    """A thousand schedules that were away would start a thousand jobs at once."""
    for number in range(40):
        await plans.set(name=f"s{number}", cron="*/30 * * * *", payload={"seconds": 0})
    await asyncio.sleep(60)
    await plans.troupe.kill_scheduler()
    await asyncio.sleep(40 * 60)
    plans.troupe.start_scheduler()
    await asyncio.sleep(2.1)
    some = [one for one in await plans.ledger() if one.late]
    assert 8 <= len(some) <= 20
    await asyncio.sleep(30)
    assert len([one for one in await plans.ledger() if one.late]) == 40


@planned
async def test_a_clock_that_steps_back_fires_nothing_twice(plans: Plans) -> None:
    """Correcting the clock would repeat what was done."""
    await plans.set(cron="* * * * *")
    await asyncio.sleep(600)
    plans.clock.step(-300)
    await asyncio.sleep(900)
    ledger = await plans.ledger()
    dues = [one.due_ms for one in ledger]
    assert {one.outcome for one in ledger} == {"fired"}
    assert dues == list(range(dues[0], dues[0] + MINUTE_MS * len(dues), MINUTE_MS))


@planned
async def test_a_clock_that_was_wrong_for_a_moment_settles_nothing(plans: Plans) -> None:
    """A clock that was a year ahead for a second would end the schedule for a year."""
    await plans.set(cron="* * * * *")
    await asyncio.sleep(600)
    plans.clock.step(365 * 86_400)
    await asyncio.sleep(1.5)
    plans.clock.step(-365 * 86_400)
    await asyncio.sleep(600)
    assert (await plans.outcomes()) == {"fired": 20}


@planned
async def test_jitter_moves_the_start_and_not_the_due_time(plans: Plans) -> None:
    """An occurrence would have another identity than the one that is audited."""
    await plans.set(cron="*/10 * * * *", jitterS=60)
    await asyncio.sleep(3_600)
    ledger = await plans.ledger()
    assert {one.due_ms % 600_000 for one in ledger} == {0}
    delays = {one.at_ms - one.due_ms for one in ledger}
    assert len(delays) > 1
    assert max(delays) <= 60_000
    assert max(one.late_ms for one in ledger) < 50


def _seconds(text: str | None) -> float:
    assert text is not None
    return datetime.fromisoformat(text).timestamp()


@planned
async def test_what_was_removed_behind_its_back_fires_nothing(plans: Plans) -> None:
    """A purged organization would come back to life at the next due time."""
    await plans.set(cron="* * * * *")
    await plans.set(name="other", cron="* * * * *")
    await asyncio.sleep(61)
    key = schedule_key("acme", AGENT, "default")
    await plans.client.commit(writes=[Write("schedule", key, None, {})])
    before = await plans.record("other")
    await asyncio.sleep(180)
    assert await plans.client.get("schedule", key) is None
    assert (await plans.record("other")).runs == before.runs + 3
    ledger = await plans.ledger()
    assert Counter(one.name for one in ledger) == {"default": 1, "other": 4}


@planned
async def test_other_rules_of_time_zones_begin_a_new_revision(plans: Plans) -> None:
    """A due time that was decided would move, or one that is to come stay where it was."""
    await plans.set(cron="0 9 * * *", timezone="Europe/Berlin")
    made = await plans.record()
    await plans.troupe.kill_scheduler()
    old = msgspec.structs.replace(made, tzdata="1999a", next_ms=made.accounted_ms + 1_000)
    key = schedule_key("acme", AGENT, "default")
    terms = {"agent": AGENT}
    await plans.client.commit(writes=[Write("schedule", key, encode(old), terms)])
    plans.troupe.start_scheduler()
    await asyncio.sleep(30)
    now = await plans.record()
    assert (now.revision, now.next_ms, now.tzdata) == (2, made.next_ms, made.tzdata)
    assert now.accounted_ms == made.accounted_ms
    assert await plans.ledger() == []


@planned
async def test_what_no_schedule_can_mean_is_refused_and_harms_nobody(plans: Plans) -> None:
    """One message could stop the scheduler, each time it is started."""
    for verb, content in (
        ("set", {"agentId": "no agent", "schedule": {"cron": "* * * * *"}}),
        ("set", {"schedule": {"cron": "0 0 */2 * 1"}}),
        ("set", {"schedule": 7}),
        ("pause", {"agentId": 7}),
        ("trigger", {"agentId": AGENT}),
        ("nothing", {}),
        ("event", {}),
    ):
        assert not (await plans.ask(verb, **content))["ok"]
    await plans.set(cron="* * * * *")
    await asyncio.sleep(60)
    assert (await plans.outcomes()) == {"fired": 1}


@planned
async def test_a_schedule_that_cannot_be_written_stands_still_alone(plans: Plans) -> None:
    """One schedule would stop all that are due with it."""
    await plans.set(cron="* * * * *")
    await plans.set(name="bad", cron="* * * * *")
    commit = plans.store.commit

    async def particular(commits: Sequence[Commit]) -> list[Committed | Refused]:
        for one in commits:
            if one.agent and any(put.key.endswith("/bad") for put in one.puts):
                raise ValueError("this can't be written")
        return await commit(commits)

    plans.store.commit = particular  # type: ignore[method-assign]
    await asyncio.sleep(180)
    assert Counter(one.name for one in await plans.ledger()) == {"default": 3}


def test_what_is_asked_of_schedules_and_comes_of_due_times_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who stopped a schedule, and that runs were missed, could be seen in the store alone."""
    caplog.set_level(logging.DEBUG, "runtime.plans.logged")

    async def main() -> None:
        plans = Plans()
        await plans.troupe.start()
        await plans.set(cron="* * * * *", catchUp={"policy": "none"})
        await asyncio.sleep(60)
        await plans.ask("trigger", reason="look")
        await asyncio.sleep(1)
        await plans.ask("pause", reason="release")
        await plans.ask("pause")
        await plans.ask("resume", reason="done")
        await asyncio.sleep(1)  # what is done is in the log after it was answered
        await plans.troupe.kill_scheduler()
        await asyncio.sleep(600)
        plans.troupe.start_scheduler()
        await asyncio.sleep(60)
        await plans.ask("event", event="push", branch="main")
        await plans.ask("delete")
        await asyncio.sleep(1)
        await plans.troupe.stop()

    run(main())
    lines = [vars(one) for one in caplog.records if one.name == "runtime.plans.logged"]
    about = {(one["agent"], one["schedule"]) for one in lines if "agent" in one}
    assert about == {(AGENT, "default")}
    asked = [(one["action"], one.get("by"), one.get("reason")) for one in lines
             if one["levelno"] == logging.INFO]  # fmt: skip
    assert asked == [
        ("schedule.set", "ann", None),
        ("schedule.trigger", "ann", "look"),
        ("schedule.pause", "ann", "release"),
        ("scheduler.refused", "ann", None),
        ("schedule.resume", "ann", "done"),
        ("schedule.event", "ann", None),
        ("schedule.delete", "ann", None),
    ]
    [missed] = [one for one in lines if one["levelno"] == logging.WARNING]
    assert missed["action"] == "schedule.missed"
    [settled] = [one for one in lines if one.get("outcome") == "missed"]
    assert missed["count"] == settled["count"] >= 8
    assert [one["job"] for one in lines if one["action"] == "schedule.fired"]
