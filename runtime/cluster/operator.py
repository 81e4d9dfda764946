"""The key of whoever runs Troupe here: in the data directory, readable by its owner only."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runtime.clock import SystemClock
from runtime.cluster.processes import held
from runtime.cluster.settings import DEFAULT_ORGANIZATION, DataDir
from runtime.keys import Keys, Role
from runtime.patience import patiently
from runtime.store.remote import RemoteStore


async def ensure_admin_key(directory: DataDir) -> None:
    """Make the admin key if there is none that opens; safe to race with itself."""
    while True:
        with held(directory.root / "admin.lock") as free:
            if free:
                await _make(directory)
                return
        await asyncio.sleep(0.1)


async def _make(directory: DataDir) -> None:
    store = RemoteStore(directory.socket)
    keys = Keys(store, SystemClock())
    try:
        present = await asyncio.to_thread(_read, directory.admin_key)
        if present and await patiently(lambda: keys.authenticate(present)) is not None:
            return
        token, _ = await keys.create(DEFAULT_ORGANIZATION, Role.ADMIN, "local admin")
        await asyncio.to_thread(_write, directory.admin_key, token)
    finally:
        await store.close()


def _read(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def _write(file: Path, token: str) -> None:
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(token + "\n")
