"""Retention: the store stays as large as its window, and nothing that is needed goes."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass

import msgspec
import pytest
from msgspec.structs import replace

from runtime import retention
from runtime.agent import AgentState, BaseAgent
from runtime.clock import ManualClock, SystemClock, iso
from runtime.errors import DeadLetterError, HistoryForgottenError, StoreUnavailableError
from runtime.hosting.suspects import COLLECTION as SUSPECTS
from runtime.ids import SYSTEM, Ids
from runtime.job import AgentJob, JobStatus
from runtime.retention import DAY_MS, Retention, RetentionSettings, ledger_since_ms
from runtime.schedule.audit import Present, audit, due_times
from runtime.schedule.record import (
    OCCURRENCES,
    Occurrence,
    Revision,
    Spec,
    decode_occurrence,
    decode_spec,
    encode,
    occurrence_id,
)
from runtime.store.contract import (
    Ack,
    Commit,
    Committed,
    Event,
    FeedEvent,
    Fence,
    Intent,
    Put,
    Result,
    Send,
    Snapshot,
    Store,
)
from runtime.store.memory import MemoryStore
from runtime.store.remote import RemoteStore
from runtime.store.sqlite import SqliteStore
from tests.http import HttpTroupe
from tests.troupe import LocalTroupe

DAY_S = DAY_MS / 1000
AGENT = "acme/code:a"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def store(tmp_path, clock):
    store = await SqliteStore.open(tmp_path / "store.db", clock, boot_id="b")
    yield store
    await store.close()


@dataclass
class Work:
    """A department at work: a job a time, with everything that it leaves behind."""

    store: SqliteStore
    clock: ManualClock

    def __post_init__(self) -> None:
        self.ids = Ids(self.clock)
        self.version = 0

    async def begin(self) -> Work:
        self.incarnation = await self.store.register("o", "host-0", 10)
        [claimed] = await self.store.claim("o", 1, [AGENT])
        self.fence = Fence(self.incarnation, claimed.epoch)
        return self

    async def commit(self, **parts) -> None:
        [answer] = await self.store.commit([Commit("acme", AGENT, self.fence, **parts)])
        assert isinstance(answer, Committed), answer

    async def job(self, status: JobStatus = JobStatus.COMPLETED) -> AgentJob:
        """One job from its message to its end."""
        job = AgentJob.new(
            id=self.ids.new("job"),
            organization_id="acme",
            agent_type="code",
            now_ms=0,
            status=status,
        )
        message_id = self.ids.ulid()
        send = Send(message_id, "acme/client:x", AGENT, b"{}")
        await self.store.commit([Commit("acme", sends=(send,))])
        for number in range(3):
            intent = Intent(job.id, str(number), "external", b"ask" * 50)
            await self.commit(intents=(intent,))
            await self.commit(results=(Result(job.id, str(number), b"told" * 50),))
        terms = (f"status={status.value}",)
        await self.commit(
            expected_version=self.version,
            acks=(Ack(message_id, b"1"),),
            events=(Event("changed", b"{}"),),
            snapshot=Snapshot(b"{}"),
            puts=(
                Put("job", job.id, "acme", job.to_json(), terms),
                Put("signal", f"{job.id}/message-1", "acme", b"{}"),
                Put("asked", job.id, "acme", b"cancel"),
                Put("idempotency", job.id, "acme", b"{}"),
            ),
            feed=(FeedEvent("acme", "job:completed", (), self.clock.now_ms(), b"{}"),),
        )
        await self.commit(puts=(Put("idempotency", job.id, "acme", None),))
        self.version += 1
        return job


async def counts(store):
    """Rows of each table."""

    def count(book):
        cursor = book.cursor
        tables = cursor.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            name: cursor.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
            for (name,) in tables
        }

    return store._transactions.read(count)


async def test_under_retention_the_store_stays_as_large_as_its_window(store, clock):
    """The disk would fill up with what is long over."""
    work = await Work(store, clock).begin()
    duty = Retention(store, clock, RetentionSettings(days=7, rows=10))
    seen = []
    for _day in range(40):
        for _ in range(3):
            await work.job()
        clock.advance(DAY_S)
        await duty.round()
        seen.append(await counts(store))
    records = {"document", "term", "unindexed"}  # 120 jobs are 120 records
    for table in seen[-1].keys() - records:
        late = max(one[table] for one in seen[20:])
        assert late <= max(one[table] for one in seen[:20]), f"{table} grows"
        assert late <= 3 * 8 * 6, table
    bound = 120 + 3 * 8 * 3 + 2 * (3 * 8 * 3)
    assert seen[-1]["document"] <= bound, "records, the window, and the window of what is deleted"
    details = (await store.health()).details
    assert int(details["forgotten_rows"]) > 700
    assert details["kept_since"].startswith("2023-12-1"), details["kept_since"]


async def test_the_file_uses_its_room_again(store, clock, tmp_path):
    """Rows would be bounded, but not the disk."""
    work = await Work(store, clock).begin()
    duty = Retention(store, clock, RetentionSettings(days=7))
    pages = []
    for day in range(30):
        for _ in range(5):
            await work.job()
        clock.advance(DAY_S)
        await duty.round()
        if day % 10 == 9:
            details = (await store.health()).details
            pages.append(int(details["size_bytes"]))
    first, second, third = pages
    assert third - second <= max(64 << 10, second - first), pages


@pytest.mark.parametrize(
    ("status", "stay"),
    [
        (JobStatus.COMPLETED, False),
        (JobStatus.CANCELLED, False),
        (JobStatus.FAILED, True),
        (JobStatus.WAITING, True),
        (JobStatus.PAUSED, True),
        (JobStatus.RUNNING, True),
    ],
)
async def test_only_jobs_that_can_never_go_on_lose_their_steps(store, clock, status, stay):
    """A job that waits for weeks, or is retried, would pay for its calls again."""
    work = await Work(store, clock).begin()
    old = await work.job(status)
    clock.advance(20 * DAY_S)
    young = await work.job(JobStatus.COMPLETED)
    clock.advance(15 * DAY_S)
    await Retention(store, clock).round()
    assert bool(await store.steps(old.id)) is stay
    assert bool(await store.get("signal", f"{old.id}/message-1")) is stay
    assert bool(await store.get("asked", old.id)) is stay
    assert len(await store.steps(young.id)) == 3
    assert await store.get("asked", young.id) is not None
    assert await store.get("job", old.id) is not None, "the record itself is never forgotten"


async def test_a_job_that_was_long_under_way_counts_from_its_end(store, clock):
    """Its steps would be gone the day it ended."""
    work = await Work(store, clock).begin()
    job = await work.job(JobStatus.RUNNING)
    clock.advance(40 * DAY_S)
    ended = replace(job, status=JobStatus.COMPLETED)
    put = Put("job", job.id, "acme", ended.to_json(), ("status=completed",))
    await work.commit(puts=(put,))
    duty = Retention(store, clock)
    await duty.round()
    assert len(await store.steps(job.id)) == 3
    clock.advance(31 * DAY_S)
    await duty.round()
    assert await store.steps(job.id) == []


async def test_the_walk_along_the_jobs_comes_to_all_of_them_and_again(store, clock, monkeypatch):
    """Jobs beyond the first page, or that ended after the walk had passed, would stay."""
    monkeypatch.setattr(retention, "JOBS_A_PAGE", 2)
    monkeypatch.setattr(retention, "PAGES_A_ROUND", 2)
    work = await Work(store, clock).begin()
    late = await work.job(JobStatus.RUNNING)
    jobs = [await work.job() for _ in range(7)]
    clock.advance(31 * DAY_S)
    duty = Retention(store, clock)
    rounds = 0
    while any([await store.steps(job.id) for job in jobs]):
        await duty.round()
        rounds += 1
        assert rounds <= 4
    put = Put("job", late.id, "acme", late.to_json(), ("status=cancelled",))
    await work.commit(puts=(put,))
    clock.advance(31 * DAY_S)
    for _ in range(6):
        await duty.round()
    assert await store.steps(late.id) == []


async def test_it_takes_its_share_of_the_time_and_no_more(clock, monkeypatch):
    """The store would do nothing but forget after a long pause."""
    store = MemoryStore(clock)
    slept, took = [], 0.01
    prune = store.prune

    async def slow(*given):
        await asyncio.sleep(took)
        return await prune(*given)

    sleep = asyncio.sleep

    async def watched(seconds, *more):
        slept.append(seconds)
        await sleep(seconds, *more)

    monkeypatch.setattr(store, "prune", slow)
    sends = tuple(Send(f"m{n}", "acme/client:x", AGENT, b"") for n in range(30))
    await store.register("o", "host-0", 10)
    await store.claim("o", 1, [AGENT])
    acks = tuple(Ack(send.message_id) for send in sends)
    await store.commit([Commit("acme", sends=sends)])
    await store.commit([Commit("acme", AGENT, Fence(store.incarnation, 1), acks=acks)])
    clock.advance(31 * DAY_S)
    monkeypatch.setattr(asyncio, "sleep", watched)
    assert await Retention(store, clock, RetentionSettings(rows=10)).round() == 30
    pauses = [seconds for seconds in slept if seconds != took]
    assert len(pauses) == 2 and min(pauses) >= took * (1 / retention.SHARE - 1)


async def test_a_store_that_is_out_stops_nothing_for_ever(clock, monkeypatch):
    """One moment without the disk, and the store would grow from then on."""
    store = MemoryStore(clock)
    tried = asyncio.Semaphore(0)

    async def broken(*given):
        tried.release()
        raise StoreUnavailableError("out")

    monkeypatch.setattr(store, "prune", broken)
    monkeypatch.setattr(retention, "EVERY_S", 0.0)
    running = asyncio.create_task(Retention(store, clock).run())
    async with asyncio.timeout(5):
        for _ in range(3):
            await tried.acquire()
    assert not running.done()
    running.cancel()


# agents over a store that forgets


class Counter(BaseAgent):
    kind = "counter"

    class State(AgentState):
        number: int = 0

    async def receive_message(self, message):
        if message.message_type == "at":
            return (await self.load_state(message.content)).number
        self.state.number += 1
        if message.message_type == "save":
            await self.save_state()
        return self.state.number


async def test_an_agent_goes_on_after_its_journal_was_forgotten(clock):
    """Retention would take the state with the history; or show a wrong past."""
    troupe = await LocalTroupe({"counter": Counter}, clock=clock).start()
    client = troupe.client()
    for kind in ("add", "add", "save"):
        await client.ask("counter:a", {}, kind)
    assert await client.ask("counter:a", 2, "at") == 2
    clock.advance(31 * DAY_S)
    await Retention(troupe.store, clock).round()
    assert await troupe.store.journal("acme/counter:a", 0, 10) == []
    assert await client.ask("counter:a", {}, "add") == 4
    for version in (2, 3, 4):
        with pytest.raises(DeadLetterError, match=HistoryForgottenError.__name__):
            await client.ask("counter:a", version, "at")
    await troupe.kill_host("host-0")
    await troupe.start_host("host-0")
    assert await client.ask("counter:a", {}, "add") == 5
    await troupe.stop()


async def test_a_store_of_the_first_release_gets_the_indexes(tmp_path, clock):
    """Forgetting in an upgraded store would walk whole tables."""
    path = tmp_path / "store.db"
    await (await SqliteStore.open(path, clock)).close()
    connection = sqlite3.connect(path)
    for name in ("document_deleted", "step_of_agent"):
        connection.execute(f"DROP INDEX {name}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    store = await SqliteStore.open(path, clock)
    assert (await store.prune(clock.now_ms(), 10)).rows == 0
    assert (await store.purge("acme", 10)).rows == 0
    await store.close()


async def test_the_process_that_has_the_store_forgets_by_itself(tmp_path, clock):
    """Nobody would begin it, and the disk fill up all the same."""
    from runtime.cluster.embedded import Embedded
    from runtime.cluster.settings import ClusterSettings

    settings = ClusterSettings(str(tmp_path), retention_days=7)
    store = await SqliteStore.open(settings.directory.database, clock)
    await (await Work(store, clock).begin()).job()
    await store.close()
    asked = RemoteStore(settings.directory.socket)

    async def look(store: Store) -> None:
        while not (await store.health()).details.get("kept_since"):
            await asyncio.sleep(0.01)
        while int((await asked.health()).details["forgotten_rows"]) < 3:
            await asyncio.sleep(0.01)
        seen.set()

    seen = asyncio.Event()
    running = asyncio.create_task(Embedded(settings, SystemClock()).run(look))
    async with asyncio.timeout(20):
        await seen.wait()
    await asked.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_marks_of_suspects_that_nobody_settled_go(store, clock):
    """One document would stay for each message that a drained host had been suspected with."""
    for name, days in (("old", 40), ("young", 0)):
        put = Put(SUSPECTS, f"{AGENT}/{name}", "acme", b"{}", ("agent=code:a",))
        await store.commit([Commit(SYSTEM, puts=(put,))])
        clock.advance(days * DAY_S)
    await Retention(store, clock).round()
    left = await store.list_documents(SUSPECTS)
    assert [one.key for one in left] == [f"{AGENT}/young"]


async def test_the_ledger_of_schedules_is_kept_for_its_days_and_still_adds_up(store, clock):
    """A schedule of each minute would fill the disk, or an audit miss what was let go."""
    begun = clock.now_ms()
    revision = Revision(
        "schedule_1", "qa:a", "default", 1, msgspec.Raw(encode(Spec("cron", "0 0 * * *"))),
        begun, "t", "ann",
    )  # fmt: skip
    days = due_times(decode_spec(revision.spec), begun, begun + 500 * DAY_MS)

    def outcome(due_ms: int, to_ms: int | None = None, count: int = 1) -> Put:
        id = occurrence_id("schedule_1", 1, due_ms)
        one = Occurrence(
            id, "schedule_1", "qa:a", "default", 1, "skipped_paused", due_ms, due_ms,
            to_ms=to_ms, count=count,
        )  # fmt: skip
        return Put(OCCURRENCES, id, "acme", encode(one), ("of=qa:a/default",))

    across = outcome(days[95], days[104], 10)  # day 100 is where the kept ones begin
    ledger = [*map(outcome, days[:95]), across, *map(outcome, days[105:])]
    await store.commit([Commit(SYSTEM, puts=tuple(ledger))])
    clock.advance(500 * DAY_S)
    duty = Retention(store, clock)
    assert await ledger_since_ms(store) == 0
    await duty.round()
    left = await store.list_documents(OCCURRENCES, limit=1_000, descending=False)
    assert [one.key for one in left] == [put.key for put in ledger[95:]]
    found = [decode_occurrence(one.body) for one in left]
    since_ms = await ledger_since_ms(store)
    assert since_ms == begun + 100 * DAY_MS
    present = {"schedule_1": Present(days[-1])}
    tally = audit([revision], found, present, since_ms=since_ms)
    assert tally.good and tally.due == len(ledger) - 96
    assert audit([revision], found, present).unaccounted == 95
    await duty.round()
    assert await store.count(OCCURRENCES) == len(left)
    answer = await HttpTroupe(store, clock).client()
    async with answer as ann:
        told = (await ann.get("/api/scheduler/status")).json()["ledgerSince"]
    assert told == iso(since_ms)
