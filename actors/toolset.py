"""The tools of one job: a toolbox made when the first one runs, told of what ran before.

Definitions and kinds are known without a workspace, so that a run which only
replays recorded steps needs none.  What a tool remembered in an earlier run
(files read, tests failing) comes back from the recorded results.  Outputs that
are too long for the conversation are kept as artifacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from actors.models.request import Json
from actors.policy import Commands
from actors.sandbox import Sandbox
from actors.tools import ToolBox, ToolOutput, definition, kind
from actors.tools.definitions import schema
from actors.tools.schema import problems
from actors.workspace import Workspace
from runtime.job import Job


class Toolset:
    """Runs a job's tools on whatever workspace the bench has."""

    def __init__(
        self,
        sandbox: Sandbox,
        job: Job,
        commands: Commands,
        names: Sequence[str],
        read_only: bool,
    ) -> None:
        self._sandbox = sandbox
        self._artifacts = _JobArtifacts(job)
        self._commands = commands
        self._names = tuple(names)
        self._read_only = read_only
        self._remembered: list[ToolOutput] = []
        self._box: ToolBox | None = None

    def definitions(self) -> list[Json]:
        """The tools as the model is told of them."""
        return [definition(name) for name in self._names]

    def kind(self, name: str) -> Literal["pure", "workspace", "control"] | None:
        """How an interrupted call is settled; None: there is no such tool."""
        if name not in self._names:
            return None
        found = kind(name)
        return "pure" if self._read_only and found == "workspace" else found

    def wrong(self, name: str, arguments: Any) -> str:
        """What is wrong with a call, in sentences; empty if nothing is."""
        return " ".join(problems(schema(name), arguments))

    async def run(self, name: str, arguments: Any, workspace: Workspace) -> ToolOutput:
        """Run a tool; the workspace is at the job's present tree."""
        if self._box is None:
            self._box = ToolBox(
                workspace,
                self._sandbox,
                self._commands,
                self._artifacts,
                read_only=self._read_only,
                names=self._names,
            )
            for earlier in self._remembered:
                self._box.remember(earlier)
        output = await self._box.run(name, arguments)
        if output.full is not None:
            await self._artifacts.put(f"{name}.txt", output.full)
        return output

    def remember(self, data: Json) -> None:
        """Take note of the data of a recorded result."""
        output = ToolOutput("", data=data)
        if self._box is not None:
            self._box.remember(output)
        else:
            self._remembered.append(output)

    async def close(self) -> None:
        """End what runs between calls; before the workspace is left."""
        if self._box is not None:
            await self._box.close()


class _JobArtifacts:
    """A job's artifacts, by their SHA-256."""

    def __init__(self, job: Job) -> None:
        self._job = job

    async def put(self, name: str, content: bytes) -> str:
        return (await self._job.artifact("analysis", name, content)).sha256

    async def get(self, sha256: str) -> bytes | None:
        return await self._job.read_artifact(sha256)
