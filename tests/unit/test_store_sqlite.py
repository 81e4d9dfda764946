"""The SQLite store beyond the contract: one connection, durability, group commit, failures."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys

import apsw
import pytest

from runtime.clock import ManualClock
from runtime.errors import StoreError, StoreFullError, StoreLockedError, StoreUnavailableError
from runtime.store import (
    parking,
    rules,
    sqlite_agents,
    sqlite_file,
    sqlite_idle,
    sqlite_inbox,
    sqlite_journal,
    sqlite_terms,
    sqlite_transactions,
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
    Remind,
    Retry,
    Send,
    Snapshot,
    Swept,
)
from runtime.store.sqlite import SqliteStore
from runtime.store.sqlite_bulk import QUERIES
from runtime.store.sqlite_terms import page_query

A = "acme/counter:a"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


async def opened(path, **options):
    return await SqliteStore.open(path, ManualClock(), **{"boot_id": "boot 1"} | options)


@pytest.fixture
async def store(path):
    store = await opened(path)
    yield store
    await store.close()


def message(id, to=A, body=b"{}"):
    return Commit("acme", sends=(Send(id, "acme/client:test", to, body),))


def connection_of(store):
    return store._transactions.file.connection


def statements(store):
    """What is executed from now on, each with its values, as a list that grows."""
    executed = []

    def note(cursor, text, values):
        executed.append(f"{text} {values}")
        return True

    connection_of(store).exec_trace = note
    return executed


# one connection


async def test_a_second_store_on_the_file_is_refused_and_told_who_has_it(path, store):
    """Two writers would corrupt the file."""
    with pytest.raises(StoreLockedError, match=f"held by process {os.getpid()}"):
        await opened(path)
    assert isinstance((await store.commit([message("m")]))[0], Committed)


async def test_another_process_is_refused_too(path, store):
    """A second supervisor would open the store of the first."""
    script = (
        "import asyncio, sys, pathlib\n"
        "from runtime.clock import ManualClock\n"
        "from runtime.store.sqlite import SqliteStore\n"
        "asyncio.run(SqliteStore.open(pathlib.Path(sys.argv[1]), ManualClock()))\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, path],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert child.returncode == 1
    assert (
        "StoreLockedError: Another process already holds this store; only one may open it. ("
        in (child.stderr)
    )
    assert f"held by process {os.getpid()}" in child.stderr


async def test_nobody_can_read_the_live_file_beside_the_store(path, store):
    """A shell on the live file would be the second connection that corrupts a WAL."""
    await store.commit([message("m")])
    look = f"sqlite3.connect({str(path)!r}, timeout=0).execute('SELECT * FROM message')"
    command = [sys.executable, "-c", f"import sqlite3; {look}"]
    rival = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert "database is locked" in rival.stderr


async def test_the_lock_ends_with_the_store(path):
    """A restart would have to wait, or to delete a file by hand."""
    for _ in range(2):
        store = await opened(path)
        await store.close()


async def test_a_failed_opening_leaves_the_lock(path):
    """A file that could not be opened once could never be opened."""
    path.write_text("this is no database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        await opened(path)
    path.unlink()
    await (await opened(path)).close()


async def test_the_files_are_their_owners_alone(path, store):
    """Everybody on the machine could read the messages."""
    await store.commit([message("m")])
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db.lock"), 0o600)


# durability


@pytest.mark.parametrize(
    ("durability", "synchronous"), [("power loss", "2"), ("process kill", "1")]
)
async def test_the_durability_is_what_was_asked_for_and_shown(path, durability, synchronous):
    """The store would promise what the file does not keep."""
    store = await opened(path, durability=durability)
    health = await store.health()
    await store.close()
    assert (health.backend, health.durability) == ("sqlite", durability)
    wanted = {"journal_mode": "wal", "locking_mode": "exclusive", "synchronous": synchronous}
    assert wanted.items() <= health.details.items()
    assert health.details["sqlite"] == apsw.sqlite_lib_version()


async def test_a_file_that_cant_be_as_durable_is_not_opened(path, monkeypatch):
    """A weaker store would answer as if it were the stronger one."""
    monkeypatch.setitem(sqlite_file._PRAGMAS, "journal_mode", "wall")
    with pytest.raises(StoreError, match="journal_mode=delete, but wall is needed"):
        await opened(path)


async def test_a_file_of_another_schema_is_not_opened(path):
    """A newer Troupe's file would be written by an older one."""
    store = await opened(path)
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema 99"):
        await opened(path)


async def test_with_durability_process_kill_a_checkpoint_follows_soon(path, monkeypatch):
    """A power loss would cost more than the second that is promised."""
    monkeypatch.setattr(sqlite_idle, "CHECKPOINT_EVERY_S", 0.01)
    store = await opened(path, durability="process kill")
    before = path.stat().st_size
    await store.commit([message(f"m{number}", body=b"x" * 5000) for number in range(50)])
    async with asyncio.timeout(5):
        while path.stat().st_size < before + 50 * 5000:
            await asyncio.sleep(0.01)
    await store.close()


# incarnation


async def held(store):
    incarnation = await store.register("o1", "host-1", 10)
    await store.claim("o1", 1, [A])
    return incarnation


async def test_the_incarnation_outlives_the_process(path):
    """Every restart of the store would fence every host."""
    store = await opened(path)
    incarnation = await held(store)
    await store.close()
    store = await opened(path)
    assert (await store.health()).incarnation == incarnation
    assert isinstance(
        (await store.commit([Commit("acme", A, Fence(incarnation, 1))]))[0], Committed
    )
    assert await store.renew("o1", 10) is True
    await store.close()


@pytest.mark.parametrize("change", [{"boot_id": "boot 2"}, {"restored": True}])
async def test_a_new_incarnation_fences_everybody(path, change):
    """After data may have been lost, an epoch could be issued twice."""
    store = await opened(path)
    incarnation = await held(store)
    await store.commit([message("m")])
    await store.close()
    store = await opened(path, **change)
    assert (await store.health()).incarnation != incarnation
    [refused] = await store.commit([Commit("acme", A, Fence(incarnation, 1))])
    assert refused.reason == "stale_incarnation"
    assert await store.renew("o1", 10) is False
    assert await store.register("o2", "host-2", 10) == (await store.health()).incarnation
    [found] = await store.claim("o2", 10)
    assert (found.agent, found.epoch, len(found.inbox)) == (A, 2, 1)
    await store.close()


async def test_the_new_incarnation_stays(path):
    """The boot after next would look like the one before it."""
    for boot_id in ("boot 1", "boot 2"):
        store = await opened(path, boot_id=boot_id)
        incarnation = (await store.health()).incarnation
        await store.close()
    store = await opened(path, boot_id="boot 2")
    assert (await store.health()).incarnation == incarnation
    await store.close()


# group commit


async def test_calls_that_gather_share_one_transaction(path, store, monkeypatch):
    """Each commit would pay for its own fsync."""
    executed = statements(store)
    answers = await asyncio.gather(*(store.commit([message(f"m{n}")]) for n in range(100)))
    begun = [one for one in executed if one.startswith("BEGIN")]
    assert len(begun) == 1
    assert sorted(answer.seqs[0] for [answer] in answers) == list(range(1, 101))


async def test_a_transaction_takes_no_more_than_its_bound(store, monkeypatch):
    """One flood would make everybody wait for one huge transaction."""
    monkeypatch.setattr(sqlite_transactions, "GROUP_COMMITS_MAX", 10)
    executed = statements(store)
    await asyncio.gather(*(store.commit([message(f"m{n}")]) for n in range(35)))
    assert sum(one.startswith("BEGIN IMMEDIATE") for one in executed) == 4


async def test_nothing_is_told_before_it_is_durable(store):
    """A subscriber, or the writer itself, would be told of what a crash takes back."""
    at_commit = []

    def look(cursor, text, values):
        if text == "COMMIT":
            tickets = store._parking._tickets["feed"]
            at_commit.extend(one.done() for one in (*tickets, calls[1]._fut_waiter))
        return True

    connection_of(store).exec_trace = look
    calls = [
        asyncio.create_task(store.tail(0, 10, 5)),
        asyncio.create_task(
            store.commit([Commit("acme", feed=(FeedEvent("acme", "e", (), 0, b""),))])
        ),
    ]
    feed, _ = await asyncio.gather(*calls)
    assert len(feed.entries) == 1
    assert at_commit == [False, False], "neither who waits nor who writes has an answer"


async def test_a_call_that_cant_be_written_fails_alone(store):
    """One host's nonsense would fail every host's commits."""
    nonsense = Commit("acme", feed=(FeedEvent("acme", "e", (), 1 << 70, b""),))
    calls = [store.commit([message("m1")]), store.commit([nonsense]), store.commit([message("m2")])]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(second, StoreError) and "OverflowError" in str(second)
    assert isinstance(first[0], Committed) and isinstance(third[0], Committed)
    assert len(await store.history(A, 0, 10)) == 2
    assert (await store.tail(0, 10, 0)).cursor == 0


async def test_too_many_waiting_calls_are_turned_away(store, monkeypatch):
    """The queue before a slow disk would grow until memory ends."""
    monkeypatch.setattr(sqlite_transactions, "CALLS_WAITING_MAX", 3)
    calls = [store.commit([message(f"m{n}")]) for n in range(5)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [list] * 3 + [StoreUnavailableError] * 2
    assert isinstance((await store.commit([message("m9")]))[0], Committed)


# waiting


async def test_what_a_commit_brings_is_told_with_its_own_answer(store):
    """A poll would wait for the next transaction, too."""
    await store.register("o1", "host-1", 10)
    await store.commit([message("m0")])
    await store.claim("o1", 1, [A])
    poll = asyncio.create_task(store.poll("o1", 1, 10, 10))
    tail = asyncio.create_task(store.tail(0, 10, 10))
    await asyncio.sleep(0)  # they begin
    event = FeedEvent("acme", "e", (), 0, b"{}")
    commits = [Commit("acme", feed=(event,)), message("m1")]
    told = asyncio.create_task(store.commit(commits))
    await asyncio.wait({poll, tail, told}, return_when=asyncio.FIRST_COMPLETED)
    assert poll.done() and tail.done() and told.done()
    assert [one.message_id for one in poll.result().messages] == ["m1"]
    assert [one.event for one in tail.result().entries] == ["e"]


async def test_who_gives_up_waiting_is_waited_for_no_more(store):
    """Every connection that ends in a poll would leave a look behind for ever."""
    waiting = [asyncio.create_task(store.tail(0, 10, 10)) for _ in range(3)]
    await asyncio.sleep(0)  # they begin
    assert len(store._parking._tickets["feed"]) == 3
    for call in waiting[:2]:
        call.cancel()
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    assert len(store._parking._tickets["feed"]) == 1
    await store.commit([Commit("acme", feed=(FeedEvent("acme", "e", (), 0, b"{}"),))])
    assert len((await waiting[2]).entries) == 1 and not store._parking._tickets


async def test_what_nobody_waits_for_goes_off_once(path):
    """A store whose hosts are all gone would write for ever, to find that nobody polls."""
    store = await opened(path)
    await store.register("o1", "host-1", 0.0)
    executed = statements(store)
    await asyncio.sleep(20 * parking.NAP_S_MIN)
    assert sum(one.startswith("BEGIN") for one in executed) <= 1
    await store.close()


# failures


async def test_a_full_disk_refuses_and_the_store_goes_on(store):
    """A full disk would leave half a commit, or need a restart."""
    await store.register("o1", "host-1", 10)
    [claimed] = await store.claim("o1", 1, [A])
    fence = Fence((await store.health()).incarnation, claimed.epoch)
    await store.commit([message("m0")])

    def limit(pages):
        connection_of(store).execute(f"PRAGMA max_page_count = {pages}").fetchall()

    limit(1)  # SQLite makes that what the file has now
    turn = Commit(
        "acme", A, fence, 0, (Ack("m0"),), events=(Event("e", b"x" * 100_000),),
        sends=(Send("m1", A, A, b""),),
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(StoreFullError):
            await store.commit([turn])
    assert [one.message_id for one in await store.inbox(A, 0, 10)] == ["m0"]
    assert await store.journal(A, 0, 10) == []
    assert (await store.health()).commits == 1
    limit(1 << 30)
    assert await store.commit([turn]) == [Committed(1, (2,), 0)]
    assert [one.message_id for one in await store.inbox(A, 0, 10)] == ["m1"]


async def test_an_io_error_is_fatal(path):
    """After a failed fsync the store would go on from pages that are not on the disk."""
    ended = []
    store = await opened(path, on_fatal=lambda: ended.append(True))
    await store.commit([message("m0")])
    failure = apsw.IOError("disk I/O error")
    failure.result, failure.extendedresult = apsw.SQLITE_IOERR, apsw.SQLITE_IOERR_FSYNC

    def broken(commits):
        raise failure

    store._transactions.book.commit = broken
    with pytest.raises(StoreUnavailableError):
        await store.commit([message("m1")])
    assert ended == [True]
    with pytest.raises(StoreUnavailableError, match="has failed"):
        await store.commit([message("m2")])
    await store.close()


async def test_a_defect_leaves_nobody_waiting(path):
    """Callers would wait for ever for a store that does nothing any more."""
    ended = []
    store = await opened(path, on_fatal=lambda: ended.append(True))

    def broken(*_):
        raise ValueError("a defect")

    store._transactions.book.commit = store._transactions._read_book = broken
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailableError, match="a defect"):
            await store.commit([message("m1")])
    assert ended == [True]
    await store.close()


async def test_a_defect_while_nobody_waits_ends_the_store(path, monkeypatch):
    """It would go on inside a transaction that nobody ends, its lists ahead of the file."""
    monkeypatch.setattr(sqlite_terms, "BEHIND", -sqlite_terms.TOGETHER)
    ended = []
    store = await opened(path, on_fatal=lambda: ended.append(True))

    def broken(*_):
        raise ValueError("a defect")

    store._transactions.book.catch_up = broken
    store._transactions._idle._piece()
    assert ended == [True]
    await store.close()


async def test_the_process_ends_when_the_disk_fails(path):
    """The supervisor would keep a store that can't write."""
    script = (
        "import asyncio, pathlib, resource, signal, sys\n"
        "from runtime.clock import ManualClock\n"
        "from runtime.store.contract import Commit, Put\n"
        "from runtime.store.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = await SqliteStore.open(pathlib.Path(sys.argv[1]), ManualClock())\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "    for number in range(1000):\n"
        "        await store.commit([Commit('a', puts=(Put('c', 'k', 'a', b'x' * 9000),))])\n"
        "asyncio.run(main())\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, path], check=False, capture_output=True, timeout=30
    )
    assert child.returncode == 70, child.stderr.decode()
    store = await opened(path)
    assert (await store.get("c", "k")).revision > 10
    await store.close()


# memory


async def test_inboxes_that_are_too_full_take_only_what_makes_room(path, monkeypatch):
    """A flood would grow the store's memory until the process is killed."""
    monkeypatch.setattr(rules, "PENDING_MAX", 3)
    store = await opened(path)
    incarnation = await store.register("o1", "host-1", 10)
    await store.claim("o1", 1, [A])
    await store.commit([message(f"m{number}") for number in range(3)])
    with pytest.raises(StoreFullError, match="3 messages are pending"):
        await store.commit([message("m3")])
    turn = Commit(
        "acme", A, Fence(incarnation, 1), acks=(Ack("m0"),), sends=(Send("r", A, A, b""),)
    )
    assert isinstance((await store.commit([turn]))[0], Committed)
    done = Commit("acme", A, Fence(incarnation, 1), acks=(Ack("m1"),))
    assert isinstance((await store.commit([done]))[0], Committed)
    assert isinstance((await store.commit([message("m3")]))[0], Committed)
    await store.close()


async def test_forgotten_agents_come_back_from_the_file(path, monkeypatch):
    """An agent beyond the cache's bound would lose its epoch, version or holder."""
    monkeypatch.setattr(sqlite_agents, "AGENTS_CACHED_MAX", 20)
    store = await opened(path)
    incarnation = await store.register("o1", "host-1", 10)
    agents = [f"acme/counter:{number}" for number in range(100)]
    await store.claim("o1", 100, agents)
    fence = Fence(incarnation, 1)
    for version in (0, 1):
        for agent in agents:
            [answer] = await store.commit(
                [Commit("acme", agent, fence, version, events=(Event("e", b""),))]
            )
            assert answer == Committed(version + 1, (), 0)
    assert len(store._transactions.book.agents._cached) <= 20
    await store.release("o1", agents)
    await store.register("o2", "host-2", 10)
    assert [one.version for one in await store.claim("o2", 100, agents)] == [2] * 100
    await store.close()


async def test_agents_with_messages_are_never_forgotten(path, monkeypatch):
    """A waiting message would vanish until the next restart."""
    monkeypatch.setattr(sqlite_agents, "AGENTS_CACHED_MAX", 10)
    store = await opened(path)
    await store.register("o1", "host-1", 10)
    await store.commit([message("m", f"acme/counter:{number}") for number in range(50)])
    await store.claim("o1", 100, [f"acme/other:{number}" for number in range(50)])
    assert len(await store.claim("o1", 100)) == 50
    await store.close()


@pytest.mark.parametrize("settle_every", [1, 3, 1000])
async def test_what_is_pending_is_found_again_wherever_it_is_kept(path, monkeypatch, settle_every):
    """After a restart a message would be lost, or one that is done be handled again."""
    monkeypatch.setattr(sqlite_inbox, "SETTLE_EVERY", settle_every)
    store = await opened(path)
    fence = Fence(await store.register("o1", "host-1", 10), 1)
    await store.claim("o1", 1, [A])
    for number in range(8):
        await store.commit([message(f"m{number}")])
    for number in (0, 5, 7):
        await store.commit([Commit("acme", A, fence, acks=(Ack(f"m{number}"),))])
    await store.commit([message("m8")])
    for _ in range(2):
        assert [one.message_id[1] for one in await store.inbox(A, 0, 10)] == list("123468")
        assert [one.message_id[1] for one in await store.history(A, 2, 10)] == list("2345678")
        await store.close()
        store = await opened(path)
    await store.close()


async def with_events(path, count):
    """A store in which two agents took turns to record so many events."""
    store = await opened(path)
    fence = Fence(await store.register("o1", "host-1", 10), 1)
    agents = [A, "acme/counter:b"]
    await store.claim("o1", 2, agents)
    for number in range(count):
        event = Event(f"e{number}", b"")
        await store.commit(
            [Commit("acme", agents[number % 2], fence, number // 2, events=(event,))]
        )
    return store


@pytest.mark.parametrize("settle_every", [1, 3, 1000])
async def test_a_journal_is_whole_wherever_its_index_is(path, monkeypatch, settle_every):
    """An agent would be given a state that lacks its latest turns, and write them again."""
    monkeypatch.setattr(sqlite_journal, "SETTLE_EVERY", settle_every)
    store = await with_events(path, 14)
    for number in range(2):
        pages = [await store.journal(A, after, limit) for after, limit in ((0, 9), (2, 3), (6, 1))]
        names = [[event.name for event in page] for page in pages]
        assert names == [[f"e{2 * of}" for of in range(7)], ["e4", "e6", "e8"], ["e12"]]
        await store.register(f"again {number}", "host-1", 10)
        [claimed] = await store.claim(f"again {number}", 1, [A])
        assert (claimed.version, len(claimed.events)) == (7, 7)
        await store.close()
        store = await opened(path)
    await store.close()


async def test_a_journal_of_which_the_end_was_forgotten_goes_on(path):
    """An event would be given the id of one that is forgotten, and be out of the index."""
    store = await with_events(path, 4)
    fence = Fence((await store.health()).incarnation, 1)
    await store.commit([Commit("acme", A, fence, 2, snapshot=Snapshot(b"{}"))])
    await store.commit([Commit("acme", "acme/counter:b", fence, 2, snapshot=Snapshot(b"{}"))])
    while (await store.prune(1 << 60, 1000)).more:
        pass
    assert await store.journal(A, 0, 10) == []
    await store.close()
    store = await opened(path)
    await store.commit([Commit("acme", A, fence, 2, events=(Event("next", b""),))])
    await store.close()
    store = await opened(path)
    assert [(one.version, one.name) for one in await store.journal(A, 0, 10)] == [(3, "next")]
    await store.close()


async def test_the_journals_of_the_first_schema_are_found(path):
    """After an upgrade every agent would begin anew."""
    store = await with_events(path, 4)
    await store.close()
    with sqlite3.connect(path) as file:
        file.executescript(
            "DROP TABLE journal_of; DELETE FROM meta WHERE name = 'journal_settled';"
            "CREATE UNIQUE INDEX journal_of_agent ON journal (agent, version);"
            "PRAGMA user_version = 1"
        )
    file.close()
    indexes = "SELECT count(*) FROM sqlite_schema WHERE name = 'journal_of_agent'"
    for _ in range(2):
        store = await opened(path)
        assert [event.name for event in await store.journal(A, 0, 10)] == ["e0", "e2"]
        assert connection_of(store).execute(indexes).fetchall() == [(0,)]
        await store.close()


# purging


@pytest.mark.parametrize("settle_every", [2, 4_096])
@pytest.mark.parametrize("limit", [1, 1000])
async def test_a_purge_leaves_no_row(path, monkeypatch, settle_every, limit):
    """Rows that no read shows would stay on the disk; or the store not open any more."""
    monkeypatch.setattr(sqlite_inbox, "SETTLE_EVERY", settle_every)
    monkeypatch.setattr(sqlite_journal, "SETTLE_EVERY", settle_every)
    store = await opened(path)
    fence = Fence(await store.register("o1", "host-1", 10), 1)
    await store.claim("o1", 1, [A])
    for number in range(5):
        await store.commit([message(f"m{number}")])
    turn = Commit(
        "acme",
        A,
        fence,
        0,
        acks=(Ack("m0"),),
        retries=(Retry("m1", 1, "busy"),),
        events=(Event("e", b"1"),),
        snapshot=Snapshot(b"1"),
        reminders=(Remind("r", 1 << 60),),
        intents=(Intent("job", "s", "pure", b"1"),),
        puts=(Put("c", "k", "acme", b"1", ("a=1",)), Put("c", "gone", "acme", b"1")),
        feed=(FeedEvent("acme", "e", (), 0, b""),),
    )
    [answer] = await store.commit([turn])
    assert isinstance(answer, Committed), answer
    told = Send("told", "acme/client:x", "system/scheduler:main", b"")
    await store.commit([Commit("acme", sends=(told,), puts=(Put("c", "gone", "acme", None),))])
    await purged(store, limit)
    await store.commit([Commit("acme", sends=(Send("late", *told_by_a_client()),))])
    await purged(store, limit)
    await store.close()
    store = await opened(path)
    rows = rows_of_each_table(connection_of(store))
    assert {name: count for name, count in rows.items() if count} == {
        "agent": 1,  # the scheduler's
        "meta": rows["meta"],
        "owner": 1,
    }
    await store.close()


async def test_half_purged_nothing_comes_back_with_a_restart(path):
    """A host would be given an agent without a name, and messages of one that is gone."""
    store = await opened(path)
    await store.commit([message(f"m{number}") for number in range(3)])
    assert (await store.purge("acme", 1)).more
    await store.close()
    store = await opened(path)
    await store.register("o1", "host-1", 10)
    assert (await store.poll("o1", 0, 10, 0)).ready == 0
    assert await store.claim("o1", 10) == []
    await purged(store, 1)
    assert rows_of_each_table(connection_of(store))["message"] == 0
    await store.close()


def told_by_a_client():
    return "acme/client:x", "system/scheduler:main", b""


async def purged(store, limit):
    while (await store.purge("acme", limit)).more:
        pass


def rows_of_each_table(connection):
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return {
        name: connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
        for (name,) in tables
    }


# plans


async def test_a_round_of_forgetting_looks_at_few_of_the_young(store):
    """Each round would read all that is kept, and the commits behind it wait."""
    incarnation = await store.register("o1", "host-1", 10)
    [found] = await store.claim("o1", 1, [A])
    fence = Fence(incarnation, found.epoch)
    for number in range(500):
        turn = Commit("acme", A, fence, acks=(Ack(f"m{number}"),))
        await store.commit([message(f"m{number}"), turn])
    executed = statements(store)
    assert await store.prune(0, 200) == Swept(0, False)
    assert len(executed) < 20


WALKS = {"pending_settled", "owner_all", "meta_all", "purge_deleted", "unindexed_all"}
"""Read whole, once, when the store opens; or an index of deleted documents alone."""
SORTS = {"reminder_due"}
"""Those due at one moment are put in order of their address."""
READS = [name for name, text in QUERIES.items() if not text.startswith(("INSERT", " AND"))]


def plan(connection, text, values=None):
    rows = connection.execute("EXPLAIN QUERY PLAN " + text, values or [1] * text.count("?"))
    return [row[3] for row in rows.fetchall()]


@pytest.mark.parametrize("name", READS)
async def test_every_statement_finds_its_rows_by_an_index(store, name):
    """The store would get slower with everything it keeps."""
    named = re.search(r"wanted \((.*?)\)", QUERIES[name])
    row = "(" + ", ".join("?" * (named[1].count(",") + 1 if named else 1)) + ")"
    text = QUERIES[name].replace("{rows}", f"{row}, {row}")
    for line in plan(connection_of(store), text):
        walks = re.match(r"SCAN (?!wanted|2 CONSTANT|2-ROW VALUES)", line) is not None
        assert not walks or name in WALKS, line
        assert "TEMP B-TREE" not in line or name in SORTS, line


@pytest.mark.parametrize("what", ["document_page", "term_page"])
@pytest.mark.parametrize("organization", [None, "acme"])
@pytest.mark.parametrize("terms", [[], ["a=1"], ["a=1", "b=2", "c=3"]])
@pytest.mark.parametrize("after", [None, "k"])
@pytest.mark.parametrize("descending", [True, False])
async def test_lists_walk_one_index_in_order(store, what, organization, terms, after, descending):
    """A page of a long list would sort all of it."""
    text, values = page_query(what, "job", organization, terms, after, 10, descending)
    lines = plan(connection_of(store), text, values)
    assert not [line for line in lines if line.startswith("SCAN") or "TEMP B-TREE" in line]
    key = "key" + ("<?" if descending else ">?") if after else "term=?"
    assert key in lines[0]
