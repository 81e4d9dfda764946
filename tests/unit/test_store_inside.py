"""Who lives in the store's process: it hears early, writes along, and can't do harm."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.clock import ManualClock
from runtime.errors import StoreError, StoreUnavailableError, UndoneError
from runtime.store.contract import (
    ABSENT,
    Ack,
    Commit,
    Committed,
    FeedEvent,
    Fence,
    Put,
    Refused,
    Send,
    Store,
    StoredMessage,
)
from runtime.store.sqlite import SqliteStore
from runtime.store.sqlite_calls import TURNS_MAX

DESK = "system/scheduler:main"
MESSAGES = 60
SEEDS = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await opened(path)
    yield store
    await store.close()


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, ManualClock(), boot_id="boot 1")


def message(id: str) -> Commit:
    return Commit("acme", sends=(Send(id, "acme/client:test", DESK, b"{}"),))


def nonsense() -> Commit:
    """What no store can write."""
    return Commit("acme", feed=(FeedEvent("acme", "e", (), 1 << 70, b""),))


def watch(store: SqliteStore, text: str, look: Callable[[], None]) -> None:
    """Look each time before this statement is executed."""

    def traced(cursor: object, executed: str, values: object) -> bool:
        if executed.startswith(text):
            look()
        return True

    store._transactions.file.connection.exec_trace = traced


class Desk:
    """An owner inside, which answers each message with a document."""

    def __init__(self, store: Store, owner: str = "o1") -> None:
        self.store = store
        self.owner = owner
        self.heard: list[str] = []
        self.written: list[str] = []

    async def sit(self) -> tuple[StoredMessage, ...]:
        """Take the desk; what waits there."""
        incarnation = await self.store.register(self.owner, "desk", 1e6)
        [claimed] = await self.store.claim(self.owner, 1, [DESK])
        self._fence = Fence(incarnation, claimed.epoch)
        self._cursor = 0
        return claimed.inbox

    async def next(self) -> tuple[StoredMessage, ...]:
        poll = await self.store.poll(self.owner, self._cursor, 100, 60.0)
        self._cursor = poll.cursor
        self.heard += [one.message_id for one in poll.messages]
        return poll.messages

    def decided(self, messages: tuple[StoredMessage, ...], body: bytes = b"{}") -> Commit:
        ids = [one.message_id for one in messages]
        puts = tuple(Put("done", id, "acme", body, expect=ABSENT) for id in ids)
        acks = tuple(Ack(id) for id in ids)
        return Commit("system", DESK, self._fence, None, acks, puts=puts)

    async def answer(self, messages: tuple[StoredMessage, ...]) -> None:
        [answer] = await self.store.commit([self.decided(messages)])
        assert isinstance(answer, Committed), answer
        self.written += [one.message_id for one in messages]

    async def work(self) -> None:
        """For ever."""
        if waiting := await self.sit():
            await self.answer(waiting)
        while True:
            if messages := await self.next():
                await self.answer(messages)


async def parked(store: SqliteStore) -> None:
    """Wait until who is inside has seen to everything."""
    insider = store._transactions._insider
    assert insider is not None
    while not insider.idle:
        await asyncio.sleep(0)


async def open_transaction(
    store: SqliteStore,
) -> tuple[Desk, tuple[StoredMessage, ...], asyncio.Task[list[Committed | Refused]]]:
    """A desk that has heard of `m1` in a transaction that is still open; what, and its writer."""
    desk = Desk(store.inside())
    await desk.sit()
    heard = asyncio.create_task(desk.next())
    await parked(store)
    writing = asyncio.create_task(store.commit([message("m1")]))
    messages = await heard
    assert [one.message_id for one in messages] == ["m1"]
    return desk, messages, writing


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_it_makes_of_a_message_is_in_the_same_transaction(
    path: Path, store: SqliteStore
) -> None:
    """Each round of the scheduler would pay for two fsyncs, and wait for the first."""
    desk = Desk(store.inside())
    work = asyncio.create_task(desk.work())
    await asyncio.sleep(0.01)
    await parked(store)
    transactions: list[str] = []
    watch(store, "COMMIT", lambda: transactions.append(",".join(desk.heard)))
    for number in range(5):
        await store.commit([message(f"m{number}")])
        assert desk.heard[-1] == f"m{number}"
        assert await store.get("done", f"m{number}") is not None
    assert len(transactions) == 5
    assert transactions[0] == "m0", "it has heard before COMMIT"
    await ended(work)
    await store.close()
    store = await opened(path)
    assert await store.count("done") == 5
    assert await store.inbox(DESK, 0, 10) == []
    await store.close()


async def test_nobody_else_hears_of_an_open_transaction(store: SqliteStore) -> None:
    """A host would begin what a crash takes back, or a person be told of it."""
    desk = Desk(store.inside())
    await desk.sit()
    heard = asyncio.create_task(desk.next())
    await parked(store)
    tailing = asyncio.create_task(store.tail(0, 10, 60.0))
    outcome = asyncio.create_task(store.outcome(DESK, "m1", 60.0))
    await asyncio.sleep(0)
    event = FeedEvent("acme", "e", (), 0, b"")
    put = Put("c", "k", "acme", b"{}")
    commit = replace(message("m1"), puts=(put,), feed=(event,))
    writing = asyncio.create_task(store.commit([commit]))
    await heard
    assert await desk.store.get("c", "k") is not None, "who is inside sees it"
    others = [
        asyncio.create_task(one)
        for one in (
            store.get("c", "k"), store.get_many("c", ["k"]), store.count("c"),
            store.list_documents("c"), store.inbox(DESK, 0, 10), store.history(DESK, 0, 10),
            store.tail(0, 10, 0.0), store.health(), desk.store.list_documents("c"),
        )
    ]  # fmt: skip
    told: list[bool] = []

    def look() -> None:
        told.extend(one.done() for one in (*others, tailing))
        told.extend(one._fut_waiter.done() for one in (writing, answer))  # type: ignore[attr-defined]

    watch(store, "COMMIT", look)
    answer = asyncio.create_task(desk.store.commit([desk.decided(heard.result())]))
    await asyncio.gather(*others, tailing, outcome, writing, answer)
    assert told and not any(told), "its own answer comes after COMMIT too"
    assert others[0].result() is not None and others[2].result() == 1
    assert others[4].result() == [], "and then they see the whole of it"


async def test_a_transaction_is_held_for_a_few_turns_only(store: SqliteStore) -> None:
    """Everybody would wait for a scheduler that is at something long."""
    desk = Desk(store.inside())
    await desk.sit()
    heard = asyncio.create_task(desk.next())
    await parked(store)
    for id in ("m1", "m2"):  # at the second it is not idle, and waited for before
        writing = asyncio.create_task(store.commit([message(id)]))
        turns = 0
        while not writing.done() and turns < 2 * TURNS_MAX:
            turns += 1
            await asyncio.sleep(0)
        assert TURNS_MAX <= turns <= TURNS_MAX + 10
    await desk.answer(heard.result())
    assert await store.count("done") == 1


async def test_what_it_reads_to_decide_takes_no_turn(store: SqliteStore) -> None:
    """Each turn of the loop is a part of every job's way to its host."""
    desk, messages, writing = await open_transaction(store)
    turns: list[str] = []

    async def read(when: str) -> None:
        asyncio.get_running_loop().call_soon(turns.append, when)
        await desk.store.get("c", "k")
        await desk.store.get_many("c", ["k"])

    await read("it decides")
    assert not turns
    store._transactions._patience._until_s = 0.0
    await read("for too long")
    assert "for too long" in turns, "nobody would be heard while it reads thousands"
    assert await writing == [Committed(0, (1,), 0)]
    turns.clear()
    await desk.answer(messages)
    await read("nobody waits")
    assert turns == ["nobody waits"]


async def test_what_was_undone_is_not_known_inside(store: SqliteStore) -> None:
    """The scheduler would go on with a job that nobody has handed in."""
    desk, messages, writing = await open_transaction(store)
    connection = store._transactions.file.connection
    connection.exec_trace = lambda cursor, text, values: text != "COMMIT"  # it fails
    with pytest.raises(UndoneError):
        await desk.store.commit([desk.decided(messages)])
    with pytest.raises(StoreError):
        await writing
    connection.exec_trace = None
    assert await store.inbox(DESK, 0, 10) == []
    for call in (desk.next(), desk.store.get("c", "k"), desk.store.count("c")):
        with pytest.raises(UndoneError):
            await call
    again = Desk(store.inside(), "o2")
    assert await again.sit() == ()
    assert await store.commit([message("m2")]) == [Committed(0, (1,), 0)], "m1 had this number"
    assert [one.message_id for one in await again.next()] == ["m2"]


async def test_what_it_can_not_write_costs_nobody_elses_commit(store: SqliteStore) -> None:
    """One defect of the scheduler would lose what a host has done."""
    desk, _, writing = await open_transaction(store)
    with pytest.raises(UndoneError):
        await desk.store.commit([nonsense()])
    assert await writing == [Committed(0, (1,), 0)]
    again = Desk(store.inside(), "o2")
    assert [one.message_id for one in await again.sit()] == ["m1"]
    with pytest.raises(StoreError, match="OverflowError"):
        await again.store.commit([nonsense()])
    assert await again.store.count("done") == 0, "alone it is refused alone"


async def test_what_is_done_in_between_keeps_out_of_an_open_transaction(
    path: Path, store: SqliteStore
) -> None:
    """A copy would hold what was undone, or the index end a transaction that is not its own."""
    desk, messages, writing = await open_transaction(store)
    transactions = store._transactions
    copying = asyncio.create_task(store.backup("t", str(path) + ".copy", 10.0))
    done: list[str] = []
    watch(store, "", lambda: done.append("something"))
    transactions._idle._ended_s = 0.0
    transactions._idle._when_idle()
    transactions._idle._sync()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writing.done() and not done
    transactions.file.connection.exec_trace = lambda cursor, text, values: text != "COMMIT"
    with pytest.raises(UndoneError):
        await desk.store.commit([desk.decided(messages)])
    with pytest.raises(StoreError):
        await writing
    transactions.file.connection.exec_trace = None
    assert (await copying).state == "done"
    copy = sqlite3.connect(str(path) + ".copy")
    assert copy.execute("SELECT count(*) FROM message").fetchall() == [(0,)]
    copy.close()


async def test_a_new_one_takes_the_place_of_the_last(store: SqliteStore) -> None:
    """Two schedulers would hear, and the older write along."""
    former, latter = store.inside(), None
    waiting = asyncio.create_task(former.poll("o1", 0, 1, 60.0))
    await asyncio.sleep(0.01)
    latter = store.inside()
    with pytest.raises(UndoneError):
        await waiting
    with pytest.raises(UndoneError):
        await former.commit([message("m1")])
    assert await latter.commit([message("m1")]) == [Committed(0, (1,), 0)]


async def test_a_store_that_is_closed_writes_what_was_asked_for(
    path: Path, store: SqliteStore
) -> None:
    """A commit would be neither written nor answered if the store is closed meanwhile."""
    desk, _, writing = await open_transaction(store)
    assert not writing.done()
    await store.close()
    assert await writing == [Committed(0, (1,), 0)]
    with pytest.raises(StoreUnavailableError):
        await desk.next()
    store = await opened(path)
    assert [one.message_id for one in await store.inbox(DESK, 0, 10)] == ["m1"]
    await store.close()


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whatever_happens_in_whichever_order_each_message_is_seen_to_once(
    path: Path, seed: int
) -> None:
    """A message would be lost to a desk that had heard of another under its number."""
    drawn = random.Random(seed)
    store = await opened(path)
    connection = store._transactions.file.connection
    accepted: set[str] = set()

    async def send(number: int) -> None:
        for _ in range(drawn.randrange(40)):
            await asyncio.sleep(0)
        id = f"m{number}"
        commits = [message(id)] if drawn.random() < 0.8 else [message(id), nonsense()]
        try:
            [answer, *_] = await store.commit(commits)
        except StoreError:
            return
        assert isinstance(answer, Committed)
        accepted.add(id)
        if drawn.random() < 0.3:
            assert any(one.message_id == id for one in await store.history(DESK, 0, 1_000))

    async def fail() -> None:
        while True:
            for _ in range(drawn.randrange(1, 30)):
                await asyncio.sleep(0)
            desk.store_fails = True
            if drawn.random() < 0.3:
                connection.execute("PRAGMA max_page_count = 1").fetchall()
                for _ in range(drawn.randrange(30)):
                    await asyncio.sleep(0)
                connection.execute(f"PRAGMA max_page_count = {1 << 30}").fetchall()

    class Clumsy(Desk):
        store_fails = False

        async def answer(self, messages: tuple[StoredMessage, ...]) -> None:
            for _ in range(drawn.choice((0, 0, 0, 1, 5, 30))):
                await asyncio.sleep(0)
            if self.store_fails:
                self.store_fails = False
                await self.store.commit([nonsense()])
            await super().answer(messages)

    lives = 0

    async def live() -> None:
        nonlocal desk, lives
        while True:
            lives += 1
            desk = Clumsy(store.inside(), f"o{lives}")
            try:
                await desk.work()
            except StoreError:
                await asyncio.sleep(0)

    desk = Clumsy(store)
    living, failing = asyncio.create_task(live()), asyncio.create_task(fail())
    await asyncio.gather(*(send(number) for number in range(MESSAGES)))
    await ended(failing)
    connection.execute(f"PRAGMA max_page_count = {1 << 30}").fetchall()
    async with asyncio.timeout(20):
        while await store.inbox(DESK, 0, 1_000):
            await asyncio.sleep(0)
    await ended(living)
    await store.close()
    store = await opened(path)
    done = {one.key for one in await store.list_documents("done", limit=1_000)}
    assert done == accepted == {one.message_id for one in await store.history(DESK, 0, 1_000)}
    await store.close()
