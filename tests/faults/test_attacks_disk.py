"""A full disk below the workspaces: a clear sentence, nothing lost, and on it goes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.errors import DiskFullError
from actors.mirror import RepositorySource
from actors.workspace import Workspace
from tests.workshop import names, needs_root, put, repository

pytestmark = needs_root


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("actors.remote.DISK_FREE_BYTES_MIN", 0)  # or nothing would be tried
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, leave: int) -> Path:
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - leave))
    return filler


async def test_opening_on_a_full_disk_can_be_tried_again(tmp_path: Path, disk: Path) -> None:
    """A job would start on half a checkout, or never start again."""
    files = {f"f{n}": os.urandom(50_000) for n in range(30)}
    source = RepositorySource(str(repository(tmp_path / "origin", files)))
    tried = 0
    for leave in (0, 100_000, 1_000_000, 1_700_000, 2_400_000):
        filler = fill(disk, leave)
        try:
            await Workspace.open(disk, "job_1", source)
        except DiskFullError:
            tried += 1
        filler.unlink()
    assert tried >= 3
    space = await Workspace.open(disk, "job_1", source)
    assert len(names(space.tree_path)) == 30
    assert await space.snapshot() == space.base_tree


async def test_a_snapshot_on_a_full_disk_loses_nothing(tmp_path: Path, disk: Path) -> None:
    """A step would be recorded without its files."""
    source = RepositorySource(str(repository(tmp_path / "origin")))
    space = await Workspace.open(disk, "job_1", source)
    put(space.tree_path, {"kept": os.urandom(10_000)})
    before = await space.snapshot()
    put(space.tree_path, {"work": os.urandom(1_000_000)})
    filler = fill(disk, 20_000)
    with pytest.raises(DiskFullError, match="free some space"):
        await space.snapshot()
    filler.unlink()
    after = await space.snapshot()
    await space.restore(before)
    assert names(space.tree_path) == ["README.md", "kept"]
    filler = fill(disk, 20_000)
    with pytest.raises(DiskFullError):
        await space.restore(after)
    filler.unlink()
    await space.restore(after)
    assert (space.tree_path / "work").stat().st_size == 1_000_000
    assert await space.snapshot() == after
