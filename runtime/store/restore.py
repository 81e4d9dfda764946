"""Restoring: a backup becomes the store's file, and what it replaces is kept beside it.

The store may be running nowhere: its lock is held throughout.  The backup is
checked and copied first and gets its new incarnation there, so that every
activation and cursor of before is void.  Then the old file makes room and the
new one takes its name.  Cut off before that, the old store is there; cut off
in between, none is, and none will be made until the restore has been repeated
(`sqlite_file` looks for the copy).

    store.db.restoring          the copy, until it has the store's name
    store.db.before-<time>      what was replaced, with its `-wal` if it had one
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from runtime.store.backup import MANIFEST, Manifest, inspect, sync
from runtime.store.sqlite_file import lock_file, machine_boot_id, open_file, restoring

LOGS: Final = ("-wal", "-shm")
PIECE_BYTES: Final = 4 << 20
Progress = Callable[[int, int], None]
"""Called with the bytes copied and those there are; with zeros while the file is checked."""


@dataclass(frozen=True)
class Restored:
    """What a restore has done."""

    manifest: Manifest
    incarnation: str
    """The new one."""
    kept: Path | None
    """Where the replaced store is; None: there was none."""


def restore(
    file: Path,
    database: Path,
    now_ms: int,
    on_progress: Progress = lambda done, size: None,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Restored:
    """Put the backup `file` in the place of the store at `database`.

    Raises:
        StoreLockedError: a store has `database` open; nothing was changed.
        BadBackupError: the file can't be used; nothing was changed.
    """
    lock = lock_file(database)
    fresh = restoring(database)
    try:
        try:
            manifest = inspect(file, lambda: on_progress(0, 0))
            _copy(file, fresh, on_progress)
            incarnation = _renew(fresh, random_bytes)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        kept = _keep(database, now_ms)
        fresh.replace(database)
        sync(database.parent)
    finally:
        for rest in _beside(fresh, *LOGS, ".lock"):
            rest.unlink(missing_ok=True)
        os.close(lock)
    return Restored(manifest, incarnation, kept)


def _copy(file: Path, fresh: Path, on_progress: Progress) -> None:
    for rest in _beside(fresh, *LOGS):  # of a restore that was cut off
        rest.unlink(missing_ok=True)
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    size = file.stat().st_size
    with file.open("rb") as source, fresh.open("wb") as target:
        while piece := source.read(PIECE_BYTES):
            target.write(piece)
            on_progress(target.tell(), size)


def _renew(fresh: Path, random_bytes: Callable[[int], bytes]) -> str:
    """Open the copy as a store that has lost data: nobody holds anything any more."""
    opened = open_file(fresh, "power loss", machine_boot_id(), True, random_bytes)
    with closing(opened):
        opened.connection.execute("DELETE FROM meta WHERE name = ?", (MANIFEST,))
    sync(fresh)
    return opened.incarnation


def _keep(database: Path, now_ms: int) -> Path | None:
    """Move the store to another name beside its own, its log with it; where it is now."""
    if database.exists():
        at = datetime.fromtimestamp(now_ms / 1000, UTC)
        kept = database.with_name(f"{database.name}.before-{at:%Y%m%dT%H%M%S}.{now_ms % 1000:03d}")
        database.rename(kept)
    else:  # there was none, or a restore was cut off here
        earlier = sorted(database.parent.glob(f"{database.name}.before-*[0-9]"))
        if not earlier:
            return None
        kept = earlier[-1]
    for log, kept_log in zip(_beside(database, *LOGS), _beside(kept, *LOGS), strict=True):
        if log.exists():  # beside another file it would corrupt that
            log.rename(kept_log)
    return kept


def _beside(file: Path, *suffixes: str) -> list[Path]:
    return [file.with_name(file.name + suffix) for suffix in suffixes]
