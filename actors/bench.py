"""The bench: a job's workspace, opened only when something is really done, at the journal's tree.

The journal says which tree the job is at; the working tree on this machine is
a cache of it.  Before the first live call of a run the two are made equal:
recorded deltas that are missing here are applied, whatever else lies in the
tree (a half-done step of a killed run, a stranger's edit) is put back, and kept
for people to look at if it is an author's.  A run that only replays recorded
steps never opens a workspace at all.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from actors.errors import DeltaDamagedError, GitError, SnapshotRefusedError
from actors.mirror import RepositorySource
from actors.workspace import Workspace
from runtime.job import Job

INLINE_BYTES_MAX: Final = 64 << 10
"""A delta up to this size lies in the step's result; a larger one is an artifact."""
DISCARDED_BYTES_MAX: Final = 1 << 20
"""Kept of a difference that is put back."""
GOING_ON: Final = "Going on"

Json = dict[str, Any]


@dataclass(frozen=True)
class Delta:
    """A recorded change of the tree."""

    old: str
    new: str
    inline: str | None
    """Base 64."""
    sha256: str | None
    """Of the artifact that holds it."""

    def to_json(self) -> Json:
        return {"old": self.old, "new": self.new, "inline": self.inline, "sha256": self.sha256}


class Bench:
    """One job's workspace, on the node where the job runs now."""

    def __init__(
        self,
        job: Job,
        root: Path,
        source: RepositorySource,
        base_ref: str | None,
        base_commit: str | None,
        *,
        keep_discarded: bool = False,
    ) -> None:
        """
        Args:
            keep_discarded: what lies in the tree of a killed run is an author's work.
        """
        self._job = job
        self._root = root
        self._source = source
        self._base_ref = base_ref
        self._base_commit = base_commit
        self._keep_discarded = keep_discarded
        self._deltas: list[Delta] = []
        self._workspace: Workspace | None = None
        self._lay: Callable[[Workspace], Awaitable[object]] | None = None
        self.tree: str | None = None
        """The tree that the journal says the job is at; None until it is established."""

    async def open(self) -> Workspace:
        """The workspace, whatever its tree holds."""
        if self._workspace is None:
            self._workspace = await Workspace.open(
                self._root,
                self._job.record.id,
                self._source,
                self._base_ref,
                base_commit=self._base_commit,
            )
            if self._lay is not None:
                await self._lay(self._workspace)
        return self._workspace

    def equipped(self, lay: Callable[[Workspace], Awaitable[object]]) -> None:
        """The journal says that the job has dependencies: `lay` puts them into a workspace."""
        self._lay = lay

    def established(self, commit: str, tree: str) -> None:
        """The journal says where the job starts from."""
        self._base_commit = commit
        self.tree = tree

    def advanced(self, delta: Delta) -> None:
        """The journal says that the tree changed."""
        self._deltas.append(delta)
        self.tree = delta.new

    async def ready(self) -> Workspace:
        """The workspace with its tree as the journal says; call it inside a step's call only.

        Raises:
            DeltaDamagedError: what is recorded can't be made here.
            WorkspaceError, DiskFullError: see Workspace.open and restore.
        """
        assert self.tree is not None, "established before the first live step"
        workspace = await self.open()
        if workspace.current_tree != self.tree:
            await self._put_back(workspace)
        return workspace

    async def put_back(self) -> Workspace:
        """As `ready`, after a call that left the tree in no recorded state."""
        workspace = await self.open()
        await self._put_back(workspace)
        return workspace

    async def record(self, only: Sequence[str] | None = None) -> Delta:
        """Snapshot after a call that may have changed the tree; what changed, as it is kept.

        The bench itself moves only when the journal does: see `advanced`.

        Args:
            only: nothing but these paths has changed; None: anything may have.
        """
        assert self.tree is not None
        new = await (await self.open()).snapshot(only)
        return await self.kept(self.tree, new)

    async def kept(self, old: str, new: str) -> Delta:
        """What leads from one tree to another, small inline, large as an artifact."""
        content = await (await self.open()).delta(old, new)
        if len(content) <= INLINE_BYTES_MAX:
            return Delta(old, new, base64.b64encode(content).decode(), None)
        artifact = await self._job.artifact(
            "code_change", f"delta-{new[:12]}.pack", content, "application/x-git-packed-objects"
        )
        return Delta(old, new, None, artifact.sha256)

    async def close(self) -> None:
        """Remove the workspace from this machine; the journal can make it again."""
        if self._workspace is not None:
            workspace, self._workspace = self._workspace, None
            await workspace.close()

    async def _put_back(self, workspace: Workspace) -> None:
        assert self.tree is not None
        if not await workspace.has(self.tree):
            for delta in self._deltas:
                await workspace.apply_delta(await self._content(delta), delta.new)
        if workspace.adopted and self._keep_discarded:
            await self._keep_found(workspace, self.tree)
        await workspace.restore(self.tree)

    async def _keep_found(self, workspace: Workspace, tree: str) -> None:
        """What a killed run changed and did not record, as an artifact; and word of it."""
        try:
            found = await workspace.snapshot()
            if found in (workspace.base_tree, *(delta.new for delta in self._deltas)):
                return  # a state that is recorded
            diff = await workspace.diff(tree, found)
            files = len(await workspace.changes(tree, found))
        except (GitError, SnapshotRefusedError) as error:
            said = f"What a killed step had changed is put back and can't be kept: {error}"
        else:
            name = f"discarded-{found[:12]}.diff"
            await self._job.artifact("analysis", name, _bounded(diff), "text/x-diff")
            said = f"Put back {files} files that a killed step had changed; kept in {name}"
        await self._job.progress(0, self._job.record.current_step or GOING_ON, said)

    async def _content(self, delta: Delta) -> bytes:
        if delta.inline is not None:
            return base64.b64decode(delta.inline)
        content = await self._job.read_artifact(delta.sha256) if delta.sha256 else b""
        if content is None:
            raise DeltaDamagedError(delta.new, f"the artifact {delta.sha256} is gone")
        return content


def _bounded(diff: bytes) -> bytes:
    more = len(diff) - DISCARDED_BYTES_MAX
    if more <= 0:
        return diff
    return diff[:DISCARDED_BYTES_MAX] + f"\n[{more} more bytes were not kept]\n".encode()
