"""What is asked of a schedule while it works: events, status, deletion, in doubt of the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from runtime.job import JobStatus
from runtime.plans.book import CHUNK
from runtime.plans.events import EVENT_BYTES_MAX
from runtime.plans.planner import EARLY_MS
from runtime.schedule.audit import Present, Tally, audit
from runtime.schedule.record import decode_revision, decode_schedule
from runtime.store.contract import Commit, Committed, Put, Refused
from tests.plans import AGENT, MINUTE_MS, Plans, planned

PUSH = {"event": "push", "repository": "https://git/x", "branch": "main"}


async def push(plans: Plans, commit: str, **more: Any) -> dict[str, Any]:
    event = {**PUSH, "commit": commit, **more}
    return await plans.client.ask("scheduler:main", event, "schedule.event")  # type: ignore[no-any-return]


async def audited(plans: Plans) -> Tally:
    found = await plans.client.list("schedule_revision", limit=100, descending=False)
    present = {}
    for document in await plans.client.list("schedule", limit=100):
        record = decode_schedule(document.body)
        waiting = tuple(one.due_ms for one in record.waiting)
        present[record.id] = Present(record.accounted_ms, waiting)
    return audit([decode_revision(one.body) for one in found], await plans.ledger(), present)


@pytest.mark.parametrize(
    ("overlap", "told"),
    [("queue_all", ["a", "b", "c"]), ("queue_one", ["a", "b"]), ("cancel_running", ["a", "c"])],
)
def test_an_event_that_waits_is_told_to_its_run(overlap: str, told: list[str]) -> None:
    """The run would not know which push it is for."""

    @planned
    async def test(plans: Plans) -> None:
        await plans.set(event="push", overlap=overlap, payload={"seconds": 30})
        outcomes = []
        for commit in "abc":
            answer = await push(plans, commit, data={"of": commit})
            outcomes.append(answer["schedules"][0]["outcome"])
        await asyncio.sleep(200)
        jobs = await plans.jobs()
        assert [job.payload["event"]["commit"] for job in jobs] == told
        assert [job.payload["event"]["data"] for job in jobs] == [{"of": one} for one in told]
        fired = [one for one in await plans.ledger() if one.outcome == "fired"]
        assert [one.event_id for one in fired] == [
            job.payload["event"]["messageId"] for job in jobs
        ]
        last = "skipped_overlap" if overlap == "queue_one" else "waiting"
        assert outcomes == ["fired", "waiting", last]

    test()


@pytest.mark.parametrize("change", ["pause", "set", "delete"])
def test_events_that_waited_are_no_due_times_of_an_audit(change: str) -> None:
    """An audit would fail for ever: it knows no due times of events."""

    @planned
    async def test(plans: Plans) -> None:
        await plans.set(event="push", overlap="queue_all", payload={"seconds": 30})
        for commit in "abc":
            await push(plans, commit)
        before = await audited(plans)
        assert (before.due, before.waiting, before.good) == (0, 0, True)
        if change == "set":
            await plans.set(event="push", overlap="queue_all", payload={"seconds": 1})
        else:
            assert (await plans.ask(change, drain=True))["ok"]
        await asyncio.sleep(100)
        tally = await audited(plans)
        assert (tally.good, tally.asked, tally.due) == (True, 3, 0), tally.notes

    test()


@planned
async def test_an_event_for_many_schedules_fires_each_once_over_a_death(plans: Plans) -> None:
    """A scheduler that died between two of its commits would fire the first ones again."""
    count = 2 * CHUNK + 3
    for number in range(count):
        await plans.set(name=f"n{number}", event="push", overlap="allow")
    commit, written = plans.store.commit, asyncio.Event()

    async def dying(commits: Sequence[Commit]) -> list[Committed | Refused]:
        answer = await commit(commits)
        if any(put.collection == "occurrence" for one in commits for put in one.puts):
            written.set()
            await asyncio.Event().wait()  # what was written is not heard of
        return answer

    plans.store.commit = dying  # type: ignore[method-assign]
    asked = asyncio.ensure_future(push(plans, "a"))
    await written.wait()
    await plans.troupe.kill_scheduler()
    plans.store.commit = commit  # type: ignore[method-assign]
    assert 0 < len(await plans.ledger()) < count
    plans.troupe.start_scheduler()
    answer = await asked
    assert [one["outcome"] for one in answer["schedules"]] == ["fired"] * count
    assert len(await plans.ledger()) == len(await plans.jobs()) == count


@planned
async def test_what_an_event_tells_has_a_bound(plans: Plans) -> None:
    """Each schedule's job has it: a large one for many would be more than a store takes."""
    await plans.set(event="push")
    answer = await push(plans, "a", data={"text": "x" * EVENT_BYTES_MAX})
    assert (answer["ok"], answer["code"]) == (False, "invalid_message")
    assert await plans.jobs() == []


@planned
async def test_a_message_that_can_not_be_written_stops_nobody_else(plans: Plans) -> None:
    """It would be the first in the inbox after each restart, and end each scheduler."""
    commit = plans.store.commit

    async def particular(commits: Sequence[Commit]) -> list[Committed | Refused]:
        if any(put.key.endswith("/bad") for one in commits for put in one.puts):
            raise ValueError("too large")
        return await commit(commits)

    plans.store.commit = particular  # type: ignore[method-assign]
    answer = await plans.ask("set", schedule={"cron": "* * * * *", "name": "bad"})
    assert (answer["ok"], answer["code"]) == (False, "unwritable")
    await plans.set(cron="* * * * *")
    await asyncio.sleep(120)
    assert (await plans.outcomes())["fired"] == 2


@planned
async def test_a_reason_that_is_no_text_is_refused(plans: Plans) -> None:
    """It would be in a record that no scheduler could read again, whosever schedules it has."""
    await plans.set(cron="* * * * *")
    for verb in ("pause", "delete"):
        answer = await plans.ask(verb, reason={"why": "x"}, drain=True)
        assert (answer["ok"], answer["code"]) == (False, "invalid_message"), verb
    about = {"agentId": AGENT, "reason": ["x"]}
    answer = await plans.client.ask("scheduler:main", about, "agent.pause")
    assert (answer["ok"], answer["code"]) == (False, "invalid_message")
    await asyncio.sleep(120)
    assert (await plans.outcomes())["fired"] == 2


@pytest.mark.parametrize("collection", ["schedule", "hold"])
def test_a_record_that_can_not_be_read_stops_nobody_else(collection: str) -> None:
    """Each scheduler would end as it reads it, for all organizations and for ever."""

    @planned
    async def test(plans: Plans) -> None:
        await plans.set(cron="* * * * *")
        bad = Put(collection, "acme/worker:two/default", "acme", b'{"reason": {}}')
        [answer] = await plans.store.commit([Commit("acme", puts=(bad,))])
        assert isinstance(answer, Committed)
        await plans.troupe.kill_scheduler()
        plans.troupe.start_scheduler()
        await asyncio.sleep(120)
        assert (await plans.outcomes())["fired"] >= 2

    test()


@planned
async def test_only_pause_and_resume_change_the_status_of_what_is_there(plans: Plans) -> None:
    """Who may change a schedule would undo an admin's pause, and strand the job that it holds."""
    await plans.set(cron="*/5 * * * *")
    entry = await plans.entry()
    assert entry.record.next_ms is not None
    await asyncio.sleep((entry.record.next_ms - plans.clock.now_ms() - EARLY_MS // 2) / 1000)
    assert (await plans.ask("pause"))["ok"]
    held = (await plans.record()).held
    assert len(held) == 1
    for enabled in (None, False):
        await plans.set(cron="*/10 * * * *", enabled=enabled)
        assert (await plans.record()).status == "paused"
    answer = await plans.ask("set", schedule={"cron": "*/10 * * * *", "enabled": True})
    assert (answer["ok"], answer["code"]) == (False, "wrong_status")
    assert (await plans.ask("resume"))["ok"]
    await asyncio.sleep(1_800)
    assert (await plans.outcomes()) == {"fired": 4}
    assert {job.status for job in await plans.jobs()} == {JobStatus.COMPLETED}
    answer = await plans.ask("set", schedule={"cron": "*/10 * * * *", "enabled": False})
    assert answer["code"] == "wrong_status"


@planned
async def test_a_schedule_in_error_is_resumed_by_nothing_but_resume(plans: Plans) -> None:
    """Any change of it would be the recovery that is an admin's to decide."""
    await plans.set(cron="* * * * *", payload={"fails": True}, maxAttempts=1)
    await asyncio.sleep(90)
    await plans.set(cron="* * * * *")
    assert (await plans.record()).status == "error"
    for enabled in (True, False):
        answer = await plans.ask("set", schedule={"cron": "* * * * *", "enabled": enabled})
        assert (answer["ok"], answer["code"]) == (False, "wrong_status")
    assert (await plans.ask("resume"))["ok"]
    assert (await plans.record()).error is None


@planned
async def test_a_schedule_without_a_name_is_not_the_default_one(plans: Plans) -> None:
    """Who sends an empty name would lose the schedule that most agents have."""
    await plans.set(cron="* * * * *")
    assert (await plans.ask("delete", name=""))["code"] == "not_found"
    assert (await plans.ask("delete", name=None))["ok"]


@planned
async def test_deleting_a_paused_schedule_ends_what_it_holds(plans: Plans) -> None:
    """Its job would be paused for ever: nobody is left who could let it go on."""
    await plans.set(name="long", cron="* * * * *", payload={"seconds": 100_000})
    await plans.set(cron="0 0 1 1 *")
    await asyncio.sleep(70)
    held = (await plans.ask("trigger"))["jobId"]  # its agent is at work
    assert (await plans.ask("pause"))["ok"]
    assert (await plans.record()).held == (held,)
    assert (await plans.ask("delete"))["ok"]
    await asyncio.sleep(10)
    assert [job.status for job in await plans.jobs() if job.id == held] == ["cancelled"]


@planned
async def test_organizations_catch_up_in_turns(plans: Plans) -> None:
    """Two that have much to catch up would keep all others waiting until they are done."""
    for organization, count in (("a-big", 60), ("b-big", 60), ("z-small", 5)):
        client = plans.troupe.client(organization)
        for number in range(count):
            content = {"agentId": f"worker:{number}", "by": "ann"}
            content["schedule"] = {"cron": "0 12 * * *"}
            answer = await client.ask("scheduler:main", content, "schedule.set")
            assert answer["ok"], answer
    await plans.troupe.kill_scheduler()
    await asyncio.sleep(23 * 3_600)
    plans.troupe.start_scheduler()
    await asyncio.sleep(6)
    fired = await plans.troupe.client("z-small").list("occurrence", limit=100)
    assert len(fired) == 5


@planned
async def test_a_message_waits_while_the_clock_is_in_doubt(plans: Plans) -> None:
    """A year's due times would be settled for whoever asked while the clock was wrong."""
    await plans.set(cron="* * * * *")
    await asyncio.sleep(600)
    plans.clock.step(365 * 86_400)
    asked = asyncio.ensure_future(plans.ask("trigger"))
    await asyncio.sleep(0.5)
    plans.clock.step(-365 * 86_400)
    assert (await asked)["ok"]
    await asyncio.sleep(600)
    assert (await plans.outcomes())["missed"] == 0
    assert (await plans.record()).accounted_ms < plans.clock.now_ms() + MINUTE_MS
