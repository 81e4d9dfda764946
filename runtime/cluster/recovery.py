"""Backup and restore of a deployment on this machine.

A backup is taken from the running store, or from its file when nothing runs; a
restore needs that nothing runs.  Both are of the embedded store: Redis has
means of its own, and they know it better.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, cast

from runtime.clock import SystemClock
from runtime.cluster.control import local_store, running
from runtime.cluster.processes import held, marked
from runtime.cluster.settings import ClusterError, ClusterSettings, DataDir
from runtime.errors import StoreError
from runtime.store.backup import Manifest, seal
from runtime.store.copies import Copied, Copies
from runtime.store.restore import Progress, Restored
from runtime.store.restore import restore as put_in_place
from runtime.store.sqlite import SqliteStore

LOOK_S: Final = 0.2
"""How often a running copy is asked how far it is."""


class BackupExistsError(ClusterError):
    """There is a file of this name already."""


class RunningError(ClusterError):
    """Troupe runs over this data directory; stop it first."""


class RedisKeepsItselfError(ClusterError):
    """The store is Redis: its own backups apply (see docs/operations.md, "Backups")."""


class NothingToBackUpError(ClusterError):
    """There is no store in this data directory."""


async def backup(
    data: Path,
    file: Path,
    *,
    replace: bool = False,
    on_copied: Callable[[Copied], None] = lambda copied: None,
    on_checked: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write a backup of the deployment's store to `file`; the store goes on working.

    Args:
        replace: overwrite a file that is there, once the new one is complete.

    Raises:
        BackupExistsError, NothingToBackUpError, RedisKeepsItselfError: nothing was written.
        StoreError: it failed; what there was under that name is untouched.
    """
    _embedded(data)
    with _beside(file, replace) as (part, final):
        async with _copying_store(data) as store:
            await _copy(store, part, on_copied)
            taken_ms = SystemClock().now_ms()
        return await asyncio.to_thread(seal, part, final, taken_ms, on_checked)


def restore(data: Path, file: Path, on_progress: Progress = lambda done, size: None) -> Restored:
    """Make a backup the store of a deployment that does not run.

    Raises:
        RunningError: it does run, or something of it is left; nothing was changed.
        StoreLockedError, BadBackupError, RedisKeepsItselfError: nothing was changed.
    """
    _embedded(data)
    directory = DataDir(data)
    directory.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with held(directory.lock) as free:
        if not free or marked(directory.root):
            raise RunningError(str(data))
        return put_in_place(file, directory.database, SystemClock().now_ms(), on_progress)


def _embedded(data: Path) -> None:
    if ClusterSettings.read(DataDir(data)).store:
        raise RedisKeepsItselfError(str(data))


@contextmanager
def _beside(file: Path, replace: bool) -> Iterator[tuple[Path, Path]]:
    """A name beside the wished-for one that nobody else has, and that one; it is cleared after."""
    final = file.absolute()
    if final.exists() and not replace:
        raise BackupExistsError(str(final))
    part = final.with_name(f".{final.name}.{secrets.token_hex(8)}.part")
    try:
        yield part, final
    finally:
        for end in ("", "-wal", "-shm"):
            part.with_name(part.name + end).unlink(missing_ok=True)


@asynccontextmanager
async def _copying_store(data: Path) -> AsyncIterator[Copies]:
    """The running store, or its file opened here."""
    if running(data) is not None:
        async with local_store(data) as store:
            yield cast(Copies, store)
        return
    database = DataDir(data).database
    if not database.exists():
        raise NothingToBackUpError(str(data))
    opened = await SqliteStore.open(database, SystemClock())
    try:
        yield opened
    finally:
        await opened.close()


async def _copy(store: Copies, part: Path, on_copied: Callable[[Copied], None]) -> None:
    while True:
        copied = await store.backup(part.name, str(part), LOOK_S)
        on_copied(copied)
        if copied.state == "done":
            return
        if copied.state == "failed":
            raise StoreError(f"the copy failed: {copied.error}")
