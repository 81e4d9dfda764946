"""The cache of dependencies: what a setup made, kept under its recipe's name.

An entry is made once, beside its place, and renamed there when it is whole, so
half of one is never found, whatever was killed.  Nothing that an agent starts
ever sees an entry: a job gets a copy of its own (`laid`), so no job can change
what another will use.  Only the base tree is ever set up, never an agent's
change of it: a setup may have a network, and an agent never has.

Layout below `root`: `<key>/` an entry, `<key>.new/` one being made,
`<key>.lock` held by whoever makes, copies or removes it; its time is the last use.

Source: docs/decisions/0005-setup-is-cached-and-copied.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from actors.disk import used_bytes
from actors.errors import SetupFailedError
from actors.git import Git, decode, encode
from actors.mirror import locked
from actors.room import disk_errors, remove, tool
from actors.sandbox import Sandbox, owner_of_job
from actors.setup.laid import MADE, Laid
from actors.setup.recipe import Recipe
from actors.setup.run import SetupLimits, SetupPlace, run_setup
from actors.workspace import Workspace

PLACES_MAX: Final = 200
"""Folders and files of one setup in the tree; each is a mount or a copy of every run."""
COPY_WAIT_S: Final = 120.0
"""Beyond the time of a setup, for whoever waits for another job's."""
_GARBAGE: Final = ("__pycache__/", ".pyc")


@dataclass(frozen=True)
class Made:
    """What became of a setup."""

    laid: Laid
    cached: bool
    """It was there already: the command was not run."""


class Dependencies:
    """The entries below `root`, on this machine."""

    def __init__(self, root: Path, sandbox: Sandbox, limits: SetupLimits) -> None:
        self._root = root
        self._sandbox = sandbox
        self._limits = limits

    async def lay(self, recipe: Recipe, workspace: Workspace, job_id: str) -> Made:
        """Put a job's own copy beside its tree, making the entry first if there is none.

        Raises:
            SetupFailedError: the command failed; nothing is kept.
            RepositoryBusyError: another job's setup of the same took too long.
            SandboxError, DiskFullError.
        """
        place = workspace.tree_path.parent / "dependencies"
        laid, cached = Laid.at(place), True
        if laid is None or laid.key != recipe.key:
            async with self._entry(recipe, workspace, job_id) as (entry, cached):
                await _copy(entry, place, job_id)
            laid = Laid.at(place)
            assert laid is not None, "a copy is whole"
        _never_recorded(workspace, laid)
        return Made(laid, cached)

    @asynccontextmanager
    async def _entry(
        self, recipe: Recipe, workspace: Workspace, job_id: str
    ) -> AsyncIterator[tuple[Path, bool]]:
        """The entry, locked, with whether it was there already."""
        with disk_errors():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        wait_s = self._limits.timeout_s + COPY_WAIT_S
        async with locked(self._root / f"{recipe.key}.lock", wait_s) as handle:
            entry = self._root / recipe.key
            cached = Laid.at(entry) is not None
            if not cached:
                await remove(entry)
                await self._make(recipe, entry, workspace, job_id, handle)
            os.utime(handle)
            yield entry, cached

    async def _make(
        self, recipe: Recipe, entry: Path, workspace: Workspace, job_id: str, handle: int
    ) -> None:
        aside = entry.with_suffix(".new")
        await remove(aside)
        try:
            with disk_errors():
                aside.mkdir(mode=0o700)
            await self._set_up(recipe, aside, workspace, job_id, handle)
            await tool("sync", "-f", str(aside))
            aside.rename(entry)
        finally:
            await remove(aside)

    async def _set_up(
        self, recipe: Recipe, aside: Path, workspace: Workspace, job_id: str, handle: int
    ) -> None:
        place = SetupPlace(aside / "work", aside / "home", aside / "scratch")
        git = Git(workspace.git.git_dir, place.tree, aside / "index", inherit_fds=(handle,))
        with disk_errors():
            for folder in (place.tree, place.home, place.scratch):
                folder.mkdir()
        await git.run("read-tree", "--reset", "-u", workspace.base_tree)
        await _give(job_id, place.tree, place.home, place.scratch)
        await run_setup(self._sandbox, recipe, place, self._limits, handle)
        made = await _kept(git, aside, recipe)
        for left in (place.tree, place.scratch, aside / "index"):
            await remove(left)
        if (size := await used_bytes(aside)) > self._limits.bytes_max:
            raise SetupFailedError(f"it made {size >> 20} MB, too much to be kept")
        with disk_errors():
            (aside / MADE).write_text(json.dumps({**made, "bytes": size}))


async def _kept(git: Git, aside: Path, recipe: Recipe) -> dict[str, Any]:
    """Move what is the setup's out of the tree; what it is."""
    listed = await git.run("ls-files", "-z", "--others", "--directory")
    names = [name for name in decode(listed.stdout).split("\0")[:-1] if not name.endswith(_GARBAGE)]
    if len(names) > PLACES_MAX:
        raise SetupFailedError(f"it left files in {len(names)} places, at most {PLACES_MAX} are")
    for name in names:
        target = aside / "tree" / name.rstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        (aside / "work" / name.rstrip("/")).rename(target)
    (aside / "tree").mkdir(exist_ok=True)
    folders = [name.rstrip("/") for name in names if name.endswith("/")]
    files = [name for name in names if not name.endswith("/") and "\n" not in name]
    return {"key": recipe.key, "command": recipe.command, "folders": folders, "files": files}


async def _copy(entry: Path, place: Path, job_id: str) -> None:
    """The job's own copy, made beside its place and renamed there."""
    aside = place.with_suffix(".new")
    await remove(aside)
    await remove(place)
    await tool("cp", "-a", "--reflink=auto", "--", str(entry), str(aside))
    await _give(job_id, aside / "home", aside / "tree")
    aside.rename(place)


async def _give(job_id: str, *places: Path) -> None:
    owner = owner_of_job(job_id)
    if owner is not None:
        await tool("chown", "-hR", f"{owner}:{owner}", *map(str, places))


def _never_recorded(workspace: Workspace, laid: Laid) -> None:
    """Tell the job's git what is the setup's, so that no state of the tree ever has it."""
    patterns = "".join(f"/{_quoted(name)}\n" for name in laid.names if "\n" not in name)
    with disk_errors():
        (workspace.git.git_dir / "info" / "exclude").write_bytes(encode(patterns))
    workspace.laid = laid


def _quoted(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"\\{char}" if char in "\\*?[]! #\t" else char for char in name)
