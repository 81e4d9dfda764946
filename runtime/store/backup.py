"""A backup: one SQLite file that holds everything the store held, and says what it is.

    copy     the store writes a copy beside the wished-for place (`Copies.backup`)
    seal     here: the copy is checked, gets its manifest, is synced and renamed

Invariant: a file under its final name is whole and was checked; what was cut
short has another name.  The manifest is a row of the file's own `meta`, so the
two can't be parted.  Putting a backup in place is `restore`'s business.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw
import msgspec
from apsw import Connection

from runtime.clock import iso
from runtime.errors import StoreError
from runtime.store.sqlite_file import READABLE, SCHEMA_VERSION

MANIFEST: Final = "backup"
"""Its name in `meta`."""
CHECK_STEPS: Final = 100_000
"""Of SQLite's virtual machine, between two signs of life."""


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """What a backup says of itself."""

    schema_version: int
    incarnation: str
    """Of the store it was taken from; a restore draws a new one."""
    head_seq: int
    """Of the latest message in it."""
    head_cursor: int
    """Of the latest event in it."""
    taken_at: str
    """RFC 3339: when the copy was complete."""


class BadBackupError(StoreError):
    """This file is no backup that can be used."""


def seal(copy: Path, final: Path, taken_ms: int, on_progress: Callable[[], None]) -> Manifest:
    """Check a copy and make it the backup at `final`, replacing what is there.

    Raises:
        BadBackupError: the copy is damaged; `final` is untouched.
    """
    with closing(_opened(copy)) as connection:
        _check(connection, copy, on_progress)
        manifest = _manifest(connection, taken_ms)
        row = (MANIFEST, msgspec.json.encode(manifest).decode())
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
        connection.execute("PRAGMA journal_mode=delete").fetchall()  # one file, no other beside it
    sync(copy)
    copy.replace(final)
    sync(final.parent)
    return manifest


def inspect(file: Path, on_progress: Callable[[], None]) -> Manifest:
    """Check a backup from its first page to its last, and read its manifest.

    Raises:
        BadBackupError: it is no backup, damaged, or of a newer Troupe.
    """
    if not file.is_file():
        raise BadBackupError(str(file), "there is no such file")
    with closing(_opened(file, "?immutable=1")) as connection:
        _check(connection, file, on_progress)
        found = _value(connection, "SELECT value FROM meta WHERE name = ?", MANIFEST)
        if found is None:
            raise BadBackupError(str(file), "a store, but not one that `troupe backup` has made")
        return msgspec.json.decode(str(found), type=Manifest)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _opened(file: Path, options: str = "") -> Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    return Connection(f"{file.absolute().as_uri()}{options}", flags=flags)


def _check(connection: Connection, file: Path, on_progress: Callable[[], None]) -> None:
    def alive() -> bool:
        on_progress()
        return False

    connection.set_progress_handler(alive, CHECK_STEPS)
    try:
        version = _value(connection, "PRAGMA user_version")
        if version not in READABLE:
            raise BadBackupError(str(file), f"its schema is {version}, not {SCHEMA_VERSION}")
        said = _value(connection, "PRAGMA quick_check(1)")
    except apsw.Error as error:
        raise BadBackupError(str(file), str(error)) from error
    finally:
        connection.set_progress_handler(None, 0)
    if said != "ok":
        raise BadBackupError(str(file), str(said))


def _manifest(connection: Connection, taken_ms: int) -> Manifest:
    meta = {
        str(name): str(value) for name, value in connection.execute("SELECT name, value FROM meta")
    }
    last_seq = _value(connection, "SELECT max(seq) FROM message") or 0
    last_cursor = _value(connection, "SELECT max(cursor) FROM feed") or 0
    return Manifest(
        int(str(_value(connection, "PRAGMA user_version"))),
        meta["incarnation"],
        max(int(meta.get("head_seq", 0)), int(str(last_seq))),
        max(int(meta.get("feed_head", 0)), int(str(last_cursor))),
        iso(taken_ms),
    )


def _value(connection: Connection, query: str, *values: str) -> object:
    """The first value of the first row, None if there is none."""
    row = connection.execute(query, values).fetchone()
    return row[0] if row else None
