"""The key of whoever runs Troupe here: in the data directory, readable by its owner only."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runtime.clock import SystemClock
from runtime.cluster.processes import held
from runtime.cluster.settings import DEFAULT_ORGANIZATION, ClusterSettings
from runtime.cluster.stores import local_client
from runtime.keys import Keys, Role
from runtime.patience import patiently


async def ensure_admin_key(settings: ClusterSettings) -> None:
    """Make the admin key if there is none that opens; safe to race with itself."""
    directory = settings.directory
    while True:
        with held(directory.root / "admin.lock") as free:
            if free:
                await _make(settings)
                return
        await asyncio.sleep(0.1)


async def _make(settings: ClusterSettings) -> None:
    store = local_client(settings)
    directory = settings.directory
    keys = Keys(store, SystemClock())
    try:
        present = await asyncio.to_thread(_read, directory.admin_key)
        if present and await patiently(keys.authenticate, present) is not None:
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
