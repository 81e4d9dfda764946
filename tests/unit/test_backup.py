"""Backups: taken while the store works, checked before they count, and a restore voids the rest."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from actors.cli import main
from runtime.clock import ManualClock, SystemClock
from runtime.cluster import recovery
from runtime.cluster.processes import held
from runtime.cluster.settings import ClusterSettings, DataDir, State
from runtime.errors import StoreError, StoreLockedError
from runtime.store import restore as restoring
from runtime.store import sqlite_copy
from runtime.store.backup import BadBackupError, inspect, seal
from runtime.store.contract import Commit, Committed, Event, FeedEvent, Fence, Refused, Send
from runtime.store.restore import restore
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore
from runtime.store.sqlite_file import SCHEMA_VERSION
from tests.troupe import LocalTroupe, soon
from tests.unit.test_jobs import STEPS, World, start, until, worker

A = "acme/counter:a"
BODY = b"x" * 3000
NOW_MS = 1_800_000_000_000


def message(id):
    return Commit(
        "acme",
        sends=(Send(id, "acme/client:test", A, BODY),),
        feed=(FeedEvent("acme", "e", (), 1, b"{}"),),
    )


def quiet(*_):
    """Nobody watches."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


async def opened(path, **options):
    return await SqliteStore.open(path, ManualClock(), **{"boot_id": "boot"} | options)


async def filled(path, messages=300, **options):
    store = await opened(path, **options)
    await store.commit([message(f"m{number}") for number in range(messages)])
    return store


async def copied(store, path, token="t"):
    """The answer when the copy has ended."""
    while (found := await store.backup(token, str(path), 1.0)).state == "copying":
        pass
    return found


@pytest.fixture
def slow(monkeypatch):
    """Copies of some hundred steps, each a turn of the loop."""
    monkeypatch.setattr(sqlite_copy, "STEP_PAGES", 1)


async def backed_up(store, path):
    part = path.with_name(path.name + ".part")
    found = await copied(store, part, path.name)
    assert found.state == "done", found
    return seal(part, path, NOW_MS, quiet)


def ids_in(file):
    with closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as connection:
        return [id for (id,) in connection.execute("SELECT message_id FROM message ORDER BY seq")]


# taking one


async def test_a_backup_says_what_it_is(path, tmp_path):
    """Whoever finds the file later could not tell how old it is, or whose."""
    store = await filled(path, 5)
    made = await backed_up(store, tmp_path / "b.db")
    assert (made.head_seq, made.head_cursor, made.schema_version) == (5, 5, SCHEMA_VERSION)
    assert made.incarnation == (await store.health()).incarnation
    assert made.taken_at == "2027-01-15T08:00:00.000Z"
    assert inspect(tmp_path / "b.db", quiet) == made
    beside = {file.name for file in tmp_path.iterdir() if file.name.startswith("b.db")}
    assert beside == {"b.db"}, "it is one file"
    assert (tmp_path / "b.db").stat().st_mode & 0o777 == 0o600
    await store.close()


@pytest.mark.usefixtures("slow")
async def test_the_store_works_between_two_steps(path, tmp_path):
    """All work would stand still for as long as the copying takes."""
    store = await filled(path)
    copying = asyncio.create_task(copied(store, tmp_path / "copy"))
    during = 0
    while not copying.done():
        assert isinstance((await store.commit([message(f"during-{during}")]))[0], Committed)
        assert len(await store.history(A, 0, 1)) == 1
        during += 1
    assert (await copying).state == "done"
    assert during > 20, "the copy was there before anything could happen"
    await store.close()


@pytest.mark.usefixtures("slow")
async def test_what_is_acknowledged_before_the_end_is_in_it(path, tmp_path):
    """A backup would lack what was accepted before it began, or hold a half of something."""
    store = await filled(path)
    wanted = [f"m{number}" for number in range(300)]
    acknowledged = []

    async def write():
        number = 0
        while True:
            await store.commit([message(f"during-{number}"), message(f"with-{number}")])
            acknowledged.append(number)
            number += 1

    writing = asyncio.create_task(write())
    async with asyncio.timeout(10):
        while not acknowledged:
            await asyncio.sleep(0)
    begun = len(acknowledged)
    await backed_up(store, tmp_path / "b.db")
    writing.cancel()
    found = ids_in(tmp_path / "b.db")
    pairs = (len(found) - 300) // 2
    expected = [f"{kind}-{number}" for number in range(pairs) for kind in ("during", "with")]
    assert found == wanted + expected, "whole transactions, in order, without a gap"
    assert begun + 10 < pairs <= len(acknowledged)
    await store.close()


@pytest.mark.usefixtures("slow")
async def test_one_copy_at_a_time(path, tmp_path):
    """Two copies would share the time between commits, and a repeated call begin a second one."""
    store = await filled(path)
    first = await store.backup("one", str(tmp_path / "1"), 0)
    assert first.state == "copying"
    with pytest.raises(StoreError, match="under way"):
        await store.backup("two", str(tmp_path / "2"), 0)
    assert (await copied(store, tmp_path / "1", "one")).state == "done"
    assert (await copied(store, tmp_path / "1", "one")).state == "done", "asked again: the same"
    assert (await copied(store, tmp_path / "2", "two")).state == "done"
    await store.close()


async def test_a_copy_nobody_waits_for_is_given_up(path, tmp_path, monkeypatch):
    """A command that was killed would leave a file of the store's size behind."""
    monkeypatch.setattr(sqlite_copy, "ABANDONED_S", -1.0)
    store = await filled(path)
    found = await copied(store, tmp_path / "copy")
    assert (found.state, (tmp_path / "copy").exists()) == ("failed", False)
    assert isinstance((await store.commit([message("after")]))[0], Committed)
    await store.close()


async def test_a_copy_that_fails_harms_nobody(path, tmp_path):
    """A backup to a full or missing disk would take the store with it."""
    store = await filled(path)
    (tmp_path / "there").write_text("mine")
    for target in (tmp_path / "missing" / "copy", tmp_path / "there"):
        found = await copied(store, target, str(target))
        assert found.state == "failed" and str(target) in found.error
    assert isinstance((await store.commit([message("after")]))[0], Committed)
    await store.close()


async def test_a_file_that_is_there_outlives_a_copy_to_its_path(path, tmp_path):
    """A copy that is refused would take yesterday's backup with it."""
    store, target = await filled(path), tmp_path / "copy"
    assert (await copied(store, target, "one")).state == "done"
    size_bytes = target.stat().st_size
    assert (await copied(store, target, "two")).state == "failed"
    assert target.stat().st_size == size_bytes
    await store.close()


@pytest.mark.usefixtures("slow")
async def test_closing_the_store_ends_its_copy(path, tmp_path):
    """`troupe down` would wait for a backup of any length."""
    store = await filled(path)
    assert (await store.backup("t", str(tmp_path / "copy"), 0)).state == "copying"
    await asyncio.wait_for(store.close(), 5)
    assert not (tmp_path / "copy").exists()
    store = await opened(path)
    assert len(await store.history(A, 0, 1000)) == 300
    await store.close()


def damage(file, where):
    with file.open("r+b") as data:
        data.seek(where)
        data.write(os.urandom(4096))


async def test_a_damaged_copy_is_never_declared_good(path, tmp_path):
    """The disk's fault would be noticed on the day the backup is needed."""
    store = await filled(path)
    final, part = tmp_path / "b.db", tmp_path / "part"
    await backed_up(store, final)
    before = final.read_bytes()
    assert (await copied(store, part)).state == "done"
    await store.close()
    damage(part, part.stat().st_size // 2 // 4096 * 4096)
    with pytest.raises(BadBackupError):
        seal(part, final, NOW_MS, quiet)
    assert final.read_bytes() == before


# restoring


async def test_a_restore_voids_everything_of_before(path, tmp_path):
    """A host or a reader of before would go on as if nothing had been taken back."""
    store = await filled(path, 3, boot_id=restoring.machine_boot_id())  # no reboot in between
    incarnation = await store.register("o1", "host-1", 10)
    await store.claim("o1", 1, [A])
    await backed_up(store, tmp_path / "b.db")
    fence = Fence(incarnation, 1)
    lost = Commit("acme", A, fence, 0, events=(Event("lost", b"{}"),))
    assert isinstance((await store.commit([lost]))[0], Committed)
    cursor = (await store.commit([message("lost")]))[0].cursor
    await store.close()
    done = restore(tmp_path / "b.db", path, NOW_MS)
    store = await opened(path, boot_id=restoring.machine_boot_id())
    health = await store.health()
    assert health.incarnation == done.incarnation != incarnation
    [refused] = await store.commit([lost])
    assert isinstance(refused, Refused) and refused.reason == "stale_incarnation"
    assert await store.renew("o1", 10) is False
    for after in (cursor, 1):
        assert (await store.tail(after, 10, 0, None, incarnation)).reset
    assert [one.message_id for one in await store.history(A, 0, 10)] == ["m0", "m1", "m2"]
    await store.register("o2", "host-1", 10)
    [found] = await store.claim("o2", 10)
    assert (found.agent, found.version, len(found.inbox)) == (A, 0, 3)
    await store.close()


async def test_what_is_replaced_is_kept(path, tmp_path):
    """A restore of the wrong file would be the end of the right one."""
    store = await filled(path, 3)
    await backed_up(store, tmp_path / "b.db")
    await store.commit([message("newer")])
    await store.close()
    done = restore(tmp_path / "b.db", path, NOW_MS)
    assert done.kept == tmp_path / "store.db.before-20270115T080000.000"
    kept = await opened(done.kept)
    assert len(await kept.history(A, 0, 10)) == 4
    await kept.close()
    assert restore(tmp_path / "b.db", tmp_path / "new.db", NOW_MS).kept is None


async def test_a_store_in_use_is_not_replaced(path, tmp_path):
    """The running store would go on in a file that has no name any more."""
    store = await filled(path, 3)
    await backed_up(store, tmp_path / "b.db")
    with pytest.raises(StoreLockedError):
        restore(tmp_path / "b.db", path, NOW_MS)
    await store.commit([message("goes on")])
    await store.close()
    store = await opened(path)
    assert len(await store.history(A, 0, 10)) == 4
    await store.close()


@pytest.mark.parametrize("kind", ["absent", "text", "empty", "damaged", "store", "newer"])
async def test_only_a_whole_backup_is_restored(path, tmp_path, kind):
    """What is no backup would take the place of the store."""
    store = await filled(path)
    file = tmp_path / "b.db"
    await backed_up(store, file)
    await store.close()
    match kind:
        case "absent":
            file.unlink()
        case "text":
            file.write_text("a shopping list" * 1000)
        case "empty":
            file.write_bytes(b"")
        case "damaged":
            damage(file, file.stat().st_size // 2 // 4096 * 4096)
        case "store":
            file.write_bytes(path.read_bytes())
        case "newer":
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA user_version = 3")
    before = path.read_bytes()
    with pytest.raises(BadBackupError):
        restore(file, path, NOW_MS)
    assert path.read_bytes() == before
    left = {one.name for one in tmp_path.iterdir()} - {"b.db"}
    assert left == {"store.db", "store.db.lock"}


async def test_a_store_that_is_damaged_can_be_replaced(path, tmp_path):
    """The very case a backup is for could not be restored."""
    store = await filled(path, 3)
    await backed_up(store, tmp_path / "b.db")
    await store.close()
    path.write_bytes(b"nothing that SQLite knows" * 1000)
    (tmp_path / "store.db-wal").write_bytes(b"its log")
    done = restore(tmp_path / "b.db", path, NOW_MS)
    assert (tmp_path / f"{done.kept.name}-wal").read_bytes() == b"its log"
    assert not (tmp_path / "store.db-wal").exists(), "an old log beside a new file corrupts it"
    store = await opened(path)
    assert len(await store.history(A, 0, 10)) == 3
    await store.close()


@pytest.mark.parametrize("at", ["inspect", "_copy", "_renew"])
async def test_a_restore_that_is_cut_off_early_has_changed_nothing(path, tmp_path, monkeypatch, at):
    """A crash in the middle would leave a store of two halves."""
    store = await filled(path, 3)
    await backed_up(store, tmp_path / "b.db")
    await store.commit([message("newer")])
    await store.close()
    cut_off(monkeypatch, at, tmp_path / "b.db", path)
    store = await opened(path)
    assert len(await store.history(A, 0, 10)) == 4
    await store.close()
    restore(tmp_path / "b.db", path, NOW_MS)
    store = await opened(path)
    assert len(await store.history(A, 0, 10)) == 3
    await store.close()


async def test_after_a_restore_that_was_cut_off_no_empty_store_is_made(path, tmp_path, monkeypatch):
    """`troupe up` would begin with nothing, as if all had been lost."""
    store = await filled(path, 3)
    await backed_up(store, tmp_path / "b.db")
    await store.commit([message("newer")])
    await store.close()
    cut_off(monkeypatch, "_keep", tmp_path / "b.db", path)
    with pytest.raises(StoreError, match="cut off"):
        await opened(path)
    restore(tmp_path / "b.db", path, NOW_MS + 5_000)
    for file, count in ((path, 3), (tmp_path / "store.db.before-20270115T080000.000", 4)):
        store = await opened(file)
        assert len(await store.history(A, 0, 10)) == count
        await store.close()


async def test_the_log_of_the_old_store_never_meets_the_new_file(path, tmp_path):
    """A restore repeated after it was cut off would corrupt the store with the old log."""
    store = await filled(path, 3)
    await backed_up(store, tmp_path / "b.db")
    await store.close()
    kept = path.rename(tmp_path / "store.db.before-20270115T080000.000")
    (tmp_path / "store.db-wal").write_bytes(b"its log")
    (tmp_path / "store.db.restoring").write_bytes(b"half")
    assert restore(tmp_path / "b.db", path, NOW_MS + 5_000).kept == kept
    assert (tmp_path / f"{kept.name}-wal").read_bytes() == b"its log"
    assert not (tmp_path / "store.db-wal").exists()
    store = await opened(path)
    assert len(await store.history(A, 0, 10)) == 3
    await store.close()


def cut_off(monkeypatch, at, file, path):
    """A restore whose process is gone right after one of its parts."""
    real = getattr(restoring, at)

    def cut(*given):
        real(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(restoring, at, cut)
        restore(file, path, NOW_MS)


async def test_a_job_goes_on_from_what_the_backup_knew(path, tmp_path):
    """Steps the backup has would be paid for again, or the job be forgotten."""
    world = World()
    factories = {"worker": worker(world)}
    store = await SqliteStore.open(path, SystemClock())
    troupe = await LocalTroupe(factories, store).start()
    world.stop_at = 3
    await start(troupe.client(), "job_a")
    await soon(world.stopped.wait())  # its intent is durable, and so are the results before it
    known = [step.key for step in await store.steps("job_a") if step.result is not None]
    await backed_up(store, tmp_path / "b.db")
    world.hold.set()
    await until(troupe.client(), "job_a", "completed")
    await troupe.stop()
    restore(tmp_path / "b.db", path, NOW_MS)
    before = list(world.calls)
    store = await SqliteStore.open(path, SystemClock())
    troupe = await LocalTroupe(factories, store).start()
    record = await until(troupe.client(), "job_a", "completed")
    assert record.result.summary == "s0 s1 s2 s3 s4"
    again = [key.rpartition(":")[2] for key in world.calls[len(before) :]]
    assert 0 < len(known) < STEPS
    assert again == [f"s{number}" for number in range(len(known), STEPS)]
    await troupe.stop()


# the command


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    return root.resolve()


def typed(data, *args, code=0):
    env = {"TROUPE_DATA": str(data), "TROUPE_URL": "", "TROUPE_TOKEN": ""}
    result = CliRunner().invoke(main, args, env=env, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def fill(data, messages=50):
    async def make():
        await (await filled(DataDir(data).database, messages)).close()

    asyncio.run(make())


def test_backup_and_restore_by_hand(data, tmp_path):
    """An operator could not do it, or not read what came of it."""
    fill(data)
    file = tmp_path / "b.db"
    made = json.loads(typed(data, "backup", str(file), "--json").stdout)
    assert (made["file"], made["headSeq"]) == (str(file), 50)
    assert made["sizeBytes"] == file.stat().st_size
    done = json.loads(typed(data, "restore", str(file), "--json").stdout)
    assert done["backup"]["takenAt"] == made["takenAt"]
    assert done["incarnation"] != made["incarnation"]
    told = typed(data, "restore", str(file)).stdout
    assert made["takenAt"] in told and "before-" in told


def test_a_file_that_is_there_is_not_overwritten(data, tmp_path):
    """Last week's backup, or a letter, would be gone."""
    fill(data)
    file = tmp_path / "b.db"
    file.write_text("a letter")
    result = typed(data, "backup", str(file), code=2)
    assert "--force" in result.stderr and file.read_text() == "a letter"
    typed(data, "backup", str(file), "--force")
    assert inspect(file, quiet).head_seq == 50
    assert {one.name for one in tmp_path.iterdir()} == {"b.db", "data"}, "nothing is left beside it"


def test_a_restore_into_a_running_troupe_is_refused(data, tmp_path):
    """The store would change under everything that runs."""
    fill(data)
    typed(data, "backup", str(tmp_path / "b.db"))
    before = DataDir(data).database.read_bytes()
    with held(DataDir(data).lock):
        result = typed(data, "restore", str(tmp_path / "b.db"), code=1)
    assert "troupe down" in result.stderr
    assert DataDir(data).database.read_bytes() == before


def test_redis_is_told_to_keep_its_own(data, tmp_path):
    """An operator would believe that there is a backup."""
    ClusterSettings(str(data), store="redis://localhost").write()
    for args in (("backup", str(tmp_path / "b.db")), ("restore", str(tmp_path / "b.db"))):
        result = typed(data, *args, code=2)
        assert "AOF" in result.stderr
    assert not (tmp_path / "b.db").exists()


def test_without_a_store_there_is_nothing_to_back_up(data, tmp_path):
    """An empty backup would look like one."""
    result = typed(data, "backup", str(tmp_path / "b.db"), code=1)
    assert "no store" in result.stderr
    assert not (tmp_path / "b.db").exists() and not DataDir(data).database.exists()


async def test_a_running_store_is_copied_over_its_socket(data, tmp_path):
    """A backup would need a stop."""
    directory = DataDir(data)
    store = await filled(directory.database, 50)
    server = StoreServer(store, directory.socket)
    await server.start()
    State("ready", "", os.getpid(), "http://127.0.0.1:1").write(directory.state)
    with held(directory.lock):
        seen = []
        made = await recovery.backup(data, tmp_path / "b.db", on_copied=seen.append)
    assert made.head_seq == 50
    assert seen[-1].state == "done" and seen[-1].pages_copied == seen[-1].pages > 10
    await server.close()
    await store.close()
