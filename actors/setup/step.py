"""The setup as a step of a job: recorded once, and laid out wherever the job goes on.

The journal keeps the recipe, not what came of it: a job that is resumed on
another machine, or after the entry was removed, sets up again from the same
base tree.
"""

from __future__ import annotations

import platform
from typing import Any, Final

from actors.bench import Bench
from actors.errors import SetupFailedError
from actors.gates.trees import list_tree
from actors.sandbox import Sandbox
from actors.setup.cache import Dependencies, Made
from actors.setup.recipe import Recipe, recipe
from actors.tools.text import visible
from actors.workspace import Workspace
from runtime.job import Job

PERCENT: Final = 3
INSTALLING: Final = "Installing dependencies"


class Setup:
    """What one job's workspace needs before anything runs in it."""

    def __init__(
        self, job: Job, bench: Bench, dependencies: Dependencies, sandbox: Sandbox, where: list[str]
    ) -> None:
        """
        Args:
            where: the repository, and the ref that the work begins from.
        """
        self._job = job
        self._bench = bench
        self._dependencies = dependencies
        self._sandbox = sandbox
        self._where = where

    async def made(self, command: str) -> tuple[str, ...]:
        """Run the step; the names of what is the setup's in the tree, folders with a slash.

        Raises:
            SetupFailedError: the command failed, now or when the step was recorded.
        """
        said = await self._job.step(
            "setup", lambda _: self._install(command), request={"command": command}
        )
        if said["error"]:
            raise SetupFailedError(*said["error"])
        found = Recipe(command, said["key"], said["python"])
        self._bench.equipped(lambda workspace: self._lay(found, workspace))
        return tuple(said["names"])

    # Inside the step's call

    async def _install(self, command: str) -> dict[str, Any]:
        await self._job.progress(PERCENT, INSTALLING, INSTALLING)
        workspace = await self._bench.open()
        tree = await list_tree(workspace.git, workspace.base_tree)
        level = (await self._sandbox.probe()).level
        surroundings = [
            self._job.record.organization_id, *self._where, level, platform.machine(),
            self._sandbox.toolchain.python, platform.python_version(),
        ]  # fmt: skip
        wanted = recipe(command, surroundings, tree)
        try:
            made = await self._lay(wanted, workspace)
            if any(map(made.laid.covers, tree)):
                # Of another commit, which did not have these files.
                wanted = wanted.only_for(workspace.base_tree)
                made = await self._lay(wanted, workspace)
        except SetupFailedError as error:
            return {"error": list(error.args)}
        how = "found in the cache" if made.cached else "installed"
        await self._job.progress(PERCENT, INSTALLING, f"Dependencies {how}")
        names = [visible(name) for name in made.laid.names]
        return {"error": None, "key": wanted.key, "python": wanted.python, "names": names}

    async def _lay(self, wanted: Recipe, workspace: Workspace) -> Made:
        return await self._dependencies.lay(wanted, workspace, self._job.record.id)
