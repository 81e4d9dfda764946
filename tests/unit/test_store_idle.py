"""The log of the SQLite store while nobody is at work."""

from __future__ import annotations

import apsw
import pytest

from runtime.store.contract import Commit, Put
from runtime.store.sqlite_idle import LOG_PAGES
from tests.unit.test_store_sqlite import opened
from tests.unit.test_store_terms import until

PAGE = 4096


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


def put(key, pages):
    return Commit("acme", puts=(Put("blob", key, "acme", b"x" * (pages * PAGE)),))


def is_idle(store):
    """Nothing is put off any more."""
    return store._transactions._idle._idle is None


async def test_a_long_log_is_moved_while_nobody_is_at_work(path):
    """The commit that makes it too long would wait ten times as long for all of it."""
    store = await opened(path)
    file, log = store._transactions.file, path.with_name(path.name + "-wal")
    for number in range(5):
        await store.commit([put(f"k{number}", LOG_PAGES)])
        assert file.log_pages() > LOG_PAGES
        await until(lambda: is_idle(store))
        assert file.log_pages() == 0
    assert log.stat().st_size < 2 * LOG_PAGES * PAGE  # each time it is written from its beginning
    await store.close()


async def test_a_short_log_is_left_where_it_is(path):
    """Each call after a pause would cost two more fsyncs."""
    store = await opened(path)
    await store.commit([put("k", LOG_PAGES // 2)])
    await until(lambda: is_idle(store))
    assert store._transactions.file.log_pages() >= LOG_PAGES // 2
    await store.close()


async def test_a_disk_too_full_for_the_log_is_not_tried_again_and_again(path):
    """An idle store would use a core for as long as nobody makes room."""
    store = await opened(path)
    file, tries = store._transactions.file, []

    def full():
        tries.append(True)
        raise apsw.FullError("database or disk is full")

    file.move_log = full
    for number in (1, 2):
        await store.commit([put("k", LOG_PAGES)])
        await until(lambda: is_idle(store))
        assert len(tries) == number
    del file.move_log
    await store.commit([put("k", 1)])
    await until(lambda: is_idle(store))
    assert file.log_pages() == 0
    await store.close()


async def test_a_log_that_could_not_be_synced_is_left_alone(path):
    """What a second fsync says after the first has failed is not so."""
    ended = []
    store = await opened(path, on_fatal=lambda: ended.append(True))
    tries = []

    def broken():
        tries.append(True)
        error = apsw.IOError("disk I/O error")
        error.result = apsw.SQLITE_IOERR
        raise error

    store._transactions.file.move_log = broken
    await store.commit([put("k", LOG_PAGES)])
    await until(lambda: is_idle(store))
    assert ended == [True]
    store._transactions._idle.put_off()
    await until(lambda: is_idle(store))
    assert tries == [True]
    await store.close()
