"""Power cuts: what a disk may hold afterwards, and what the SQLite store makes of it."""

from __future__ import annotations

import asyncio
import random
import shutil
import struct
from pathlib import Path

import pytest

from runtime.clock import SystemClock
from runtime.store.sqlite import SqliteStore
from runtime.verify import powerloss as subject
from runtime.verify.commits import inspect, write
from runtime.verify.replay import SECTOR, Disk, Operation, read_log

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="the recorder is C")


def w(offset: int, data: bytes, name: str = "f") -> Operation:
    return Operation("W", name, offset, data)


def s(name: str = "f") -> Operation:
    return Operation("S", name, 0, b"")


def cuts(*operations: Operation, count: int = 300) -> set[bytes | None]:
    """What the file `f` may hold after these operations and a cut."""
    disk, source = Disk(), random.Random(1)
    for one in operations:
        disk.do(one)
    return {disk.cut(source).get("f") for _ in range(count)}


def test_what_was_synced_is_there() -> None:
    """The model would lose what a disk must keep."""
    assert cuts(w(0, b"aa"), w(1, b"b"), s()) == {b"ab"}


def test_what_was_not_synced_may_be_there_in_any_combination() -> None:
    """Only losses in order would be tried, and a disk does not keep to it."""
    assert cuts(w(0, b"a"), s(), w(1, b"b"), w(2, b"c")) == {b"a", b"ab", b"abc", b"a\0c"}


def test_another_files_sync_saves_nothing() -> None:
    """A sync of the log would count for the database."""
    assert b"" in cuts(w(0, b"a"), w(0, b"x", "g"), s("g"))


def test_a_write_can_be_torn_at_sectors_only() -> None:
    """A half-written page would not be tried, or one that no disk leaves."""
    found = cuts(w(0, b"a" * 3 * SECTOR), s(), w(SECTOR // 2, b"b" * 2 * SECTOR))
    sectors = {tuple(body[at] for at in (0, SECTOR // 2, SECTOR, 2 * SECTOR)) for body in found}
    assert len(sectors) == 8, "each of the three sectors it touches, for itself"
    assert all(body[: SECTOR // 2] == b"a" * (SECTOR // 2) for body in found)


def test_a_truncation_is_a_write_and_a_removal_is_durable() -> None:
    """The file's end would be certain, or a removed file come back."""
    cut = Operation("T", "f", 1, b"")
    assert cuts(w(0, b"abc"), s(), cut) == {b"abc", b"a"}
    assert cuts(w(0, b"abc"), s(), cut, s()) == {b"a"}
    assert cuts(w(0, b"abc"), s(), Operation("U", "f", 0, b"")) == {None}


def test_the_record_is_read_as_it_was_written() -> None:
    """An operation could be taken for another."""
    log = b""
    wanted = [w(7, b"data"), Operation("T", "file", 9, b""), s("file-wal")]
    for one in wanted:
        name = one.name.encode()
        head = struct.pack("=qqq", len(name), one.offset, len(one.data))
        log += one.kind.encode() + head + name + one.data
    assert list(read_log(log)) == wanted


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> list[Operation]:
    """What the real store did to its files, with durability `power loss`."""
    place = tmp_path_factory.mktemp("powerloss")
    return subject._record(place, subject._compile(place), "power loss")


def replayed(operations: list[Operation], points: int) -> subject.Replayed:
    return asyncio.run(subject._replay(operations, points, seed=3))


@needs_gcc
def test_no_cut_loses_or_tears_an_answered_commit(recorded) -> None:
    """What was accepted would not survive the power cut that the store claims to survive."""
    found = replayed(recorded, 50)
    assert found.details == []
    assert (found.lost_points, found.torn) == (0, 0)
    assert found.acked > 100
    assert found.syncs > 100


@needs_gcc
def test_no_cut_tears_a_commit_of_the_faster_setting(tmp_path: Path) -> None:
    """With `process kill` a power cut may cost the latest work, never leave half of it."""
    recorder = subject._compile(tmp_path)
    found = replayed(subject._record(tmp_path, recorder, "process kill"), 50)
    assert (found.details, found.torn) == ([], 0)
    assert found.lost_points > 0, "without a sync a cut costs something"


@needs_gcc
def test_a_store_that_does_not_sync_is_found_out(recorded) -> None:
    """The replay could be too kind to show anything."""
    found = replayed([one for one in recorded if one.kind != "S"], 40)
    assert found.lost_points > 10
    assert found.torn > 10


async def test_a_torn_commit_is_told_from_a_missing_one(tmp_path: Path) -> None:
    """Half a commit would count as none, or as one."""
    await write(tmp_path, "power loss", 6)
    acks = (tmp_path / "acks").read_text().splitlines()
    store = await SqliteStore.open(tmp_path / "store.db", SystemClock(), boot_id="after")
    found = await inspect(store)
    assert found.there == set(acks)
    assert len(acks) == 12
    assert found.torn == []
    await store.close()
    connection = __import__("sqlite3").connect(tmp_path / "store.db")
    connection.execute("DELETE FROM step WHERE key = 's-000006'")
    connection.commit()
    connection.close()
    store = await SqliteStore.open(tmp_path / "store.db", SystemClock(), boot_id="after")
    found = await inspect(store)
    await store.close()
    assert found.torn == ["done 6: ['step']"]


@needs_gcc
@pytest.mark.slow
def test_a_thousand_cuts_with_each_durability() -> None:
    """A rare cut could lose or tear what the few of the quick run do not meet."""
    outcome = subject.powerloss(points=1000)
    assert outcome.good, outcome.details
    assert outcome.figure["full"]["points"] == outcome.figure["normal"]["points"] == 1000
    assert outcome.figure["normal"]["lostPoints"] > 0, "without a sync a cut costs something"
