"""The SQLite file: locked, opened once, with the durability that was asked for.

Exactly one connection to the file exists: `flock` on a file beside it keeps
other stores out, `locking_mode=EXCLUSIVE` keeps everything else out.  SQLite
before 3.51.3 can corrupt a WAL that two connections reset; with one it can't.
APSW brings its own SQLite, later than that, so every machine has the same one;
nothing else in the process may open the file (sqlite.org/howtocorrupt.html 2.2.1).
What a pragma was asked for is read back, and a store that could not get it
does not open.

The incarnation is kept in the file and drawn anew when the file may have
forgotten something accepted: after a boot, or when it is a restored backup.
A new incarnation begins without owners, so everything is claimed afresh.

Source: sqlite.org/wal.html; research/reliability.md "Rules that make it true".
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import apsw
from apsw import Connection

from runtime.errors import StoreError, StoreLockedError

Durability = Literal["power loss", "process kill"]

SCHEMA_VERSION: Final = 2
READABLE: Final = (1, SCHEMA_VERSION)
"""Schemas that become the present one when a file is opened."""
STATEMENTS_MAX: Final = 1_024
"""Prepared statements kept; all there are."""
BUSY_MS: Final = 5_000
"""How long an opening waits for somebody who is reading the file with another tool."""
CACHE_KIB: Final = 4 << 10
"""What a transaction touches. A larger cache costs more than it saves: a commit in which a page was
split looks through all of it (balancing has the page at 1 GiB for a moment, and what is beyond the
end is sought at COMMIT), and what is not in it is in the system's."""
LOOKASIDE: Final = (1_200, 400)
"""Bytes and number of the pieces of memory a connection has of its own: what a group binds fits."""
CHECKPOINT_PAGES: Final = 8_000
"""WAL pages (4 KiB) after which a commit also moves them into the database file: 50 to 80 ms."""
_PRAGMAS: Final = {
    "locking_mode": "exclusive",
    "journal_mode": "wal",
    "synchronous": "2",
    "wal_autocheckpoint": str(CHECKPOINT_PAGES),
    "journal_size_limit": str(64 << 20),
    "cache_size": str(-CACHE_KIB),
    "temp_store": "2",
    "trusted_schema": "0",
}

_HARMLESS: Final = {
    0,
    apsw.SQLITE_FULL,
    apsw.SQLITE_TOOBIG,
    apsw.SQLITE_CONSTRAINT,
    apsw.SQLITE_MISMATCH,
    apsw.SQLITE_RANGE,
    apsw.SQLITE_ERROR,
}
"""Errors that concern one statement, not the file."""


def _spare() -> None:
    """Have SQLite, for this process, keep no statistics of its memory and no lock of a connection.

    Nobody reads the one, and a connection here has one thread; both cost something with each
    value that is bound, as does memory that a connection does not have at hand.
    """
    if apsw.connections():  # somebody else was here first: what is open must not be shut down
        return
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, False)
    apsw.config(apsw.SQLITE_CONFIG_MULTITHREAD)
    apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, *LOOKASIDE)
    apsw.initialize()


_spare()


@dataclass
class StoreFile:
    """An open, locked database file."""

    path: Path
    connection: Connection
    lock: int
    incarnation: str
    durability: Durability

    def details(self) -> dict[str, str]:
        """The effective settings, read from the connection."""
        found = {name: _pragma(self.connection, name) for name in _PRAGMAS}
        pages = int(_pragma(self.connection, "page_count"))
        size = pages * int(_pragma(self.connection, "page_size"))
        version = apsw.sqlite_lib_version()
        return found | {"sqlite": version, "file": str(self.path), "size_bytes": str(size)}

    def log_pages(self) -> int:
        """Pages of the log that are not in the database file yet; 30 us."""
        pages, moved = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        return pages - moved

    def move_log(self) -> None:
        """Sync the log and move it into the database file, some 10 us a page; the next commit
        writes the log from its beginning."""
        self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def close(self) -> None:
        self.connection.close()
        os.close(self.lock)


def open_file(
    path: Path,
    durability: Durability,
    boot_id: str,
    restored: bool,
    random_bytes: Callable[[int], bytes],
) -> StoreFile:
    """Lock and open the database, creating it if need be.

    Raises:
        StoreLockedError: another process (or this one) has it open.
        StoreError: not our file, or it can't be as durable as was asked.
    """
    lock = lock_file(path)
    try:
        if not path.exists() and restoring(path).exists():
            raise StoreError(f"{path}: a restore was cut off; repeat it")
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = Connection(str(path), statementcachesize=STATEMENTS_MAX)
        try:
            connection.set_busy_timeout(BUSY_MS)
            _configure(connection)
            _create(connection)
            incarnation = _incarnation(connection, boot_id, restored, random_bytes)
            if durability == "process kill":
                _set(connection, "synchronous", "1")
        except BaseException:
            connection.close()
            raise
    except apsw.Error as error:
        os.close(lock)
        raise StoreError(f"{path}: {error}") from error
    except BaseException:
        os.close(lock)
        raise
    return StoreFile(path, connection, lock, incarnation, durability)


def restoring(path: Path) -> Path:
    """Where a backup is prepared to become the store at `path`."""
    return path.with_name(f"{path.name}.restoring")


def machine_boot_id() -> str:
    """Names this boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def lock_file(path: Path) -> int:
    """Keep every other store from the file; a descriptor to close when that may end.

    Raises:
        StoreLockedError: another process (or this one) has it open.
    """
    beside = path.with_name(path.name + ".lock")
    lock = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise StoreLockedError(f"{path} is held by process {holder}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _configure(connection: Connection) -> None:
    for name, value in _PRAGMAS.items():
        _set(connection, name, value)


def _set(connection: Connection, name: str, value: str) -> None:
    connection.execute(f"PRAGMA {name}={value}").fetchall()
    effective = _pragma(connection, name)
    if effective != value:
        raise StoreError(f"SQLite has {name}={effective}, but {value} is needed")


def _pragma(connection: Connection, name: str) -> str:
    return str(connection.execute(f"PRAGMA {name}").fetchall()[0][0])


def _create(connection: Connection) -> None:
    """Make the file one of the present schema, whole or not at all.

    One that is needs nothing written: it must open on a disk that is full.
    """
    version = int(_pragma(connection, "user_version"))
    if version == SCHEMA_VERSION:
        return
    scripts = [_script("later.sql")]
    if version not in READABLE:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
        if version != 0 or tables:
            raise StoreError(f"the file has schema {version}, this Troupe needs {SCHEMA_VERSION}")
        scripts.insert(0, _script("schema.sql"))
    text = "; ".join(["BEGIN", *scripts, f"PRAGMA user_version={SCHEMA_VERSION}", "COMMIT"])
    connection.execute(text).fetchall()


def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text()


def _incarnation(
    connection: Connection,
    boot_id: str,
    restored: bool,
    random_bytes: Callable[[int], bytes],
) -> str:
    """Keep the incarnation or draw it anew; always written with a full sync."""
    kept = {name: value for name, value in connection.execute("SELECT name, value FROM meta")}
    if "incarnation" in kept and not restored and kept.get("boot") == boot_id:
        return str(kept["incarnation"])
    drawn = random_bytes(8).hex()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)", [("incarnation", drawn), ("boot", boot_id)]
    )
    connection.execute("DELETE FROM owner")
    connection.execute("UPDATE agent SET owner = NULL WHERE owner IS NOT NULL")
    connection.execute("COMMIT")
    return drawn


def code_of(error: Exception) -> int:
    """SQLite's primary result code; 0 when the error is not SQLite's own."""
    return int(getattr(error, "result", 0)) if isinstance(error, apsw.Error) else 0


def is_fatal(error: Exception) -> bool:
    """Whether the file, and not one statement or value, is what failed."""
    return code_of(error) not in _HARMLESS
