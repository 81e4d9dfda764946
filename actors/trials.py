"""Trials: what a repository's own commands say of a tree, run in the workspace and put back.

Each is a step of the review.  All trials of the base tree come before any of
the final one, and the tests last, so that nothing an author wrote has run
before what it is compared with.  What the exit codes mean is the gates'
business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from actors.bench import Bench
from actors.gates import CheckVerdict, SuiteVerdict
from actors.gates.checks import CHECKS
from actors.policy import Commands
from actors.tools import ToolOutput
from actors.tools.text import visible
from actors.toolset import Toolset
from actors.workspace import Workspace
from runtime.job import Job, StepContext

Which = Literal["base", "final"]

KILLED: Final = 137
"""Exit code of a run that did not come to its end."""
CHECK_TIMEOUT_S: Final = 600
"""Of one run of a linter or a type checker."""
LINES_KEPT: Final = 30
LINE_CHARS_MAX: Final = 300
_PERCENT: Final[dict[Which, int]] = {"base": 5, "final": 10}
_WITH: Final[dict[Which, str]] = {"base": "without the change", "final": "with the change"}
_COUNTS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) errors")


@dataclass(frozen=True)
class Trial:
    """What the commands said of one tree."""

    tests: SuiteVerdict | None
    """None: there is no test command."""
    checks: dict[str, CheckVerdict]
    """By name, of those that the policy names."""


class Trials:
    """Of one review."""

    def __init__(
        self,
        job: Job,
        bench: Bench,
        commands: Commands,
        tools: Callable[[tuple[str, ...]], Toolset],
    ) -> None:
        self._job = job
        self._bench = bench
        self._commands = commands
        self._tools = tools

    async def of(self, which: Which, tree: str) -> Trial:
        """Run every command on a tree."""
        checks = {}
        for name, called in CHECKS.items():
            if (command := getattr(self._commands, name)) is not None:
                asked = {"command": command, "timeout_s": CHECK_TIMEOUT_S}
                doing = f"Running the {called} {_WITH[which]}"
                output = await self._step(f"{name}-{which}", which, tree, doing, "bash", asked)
                checks[name] = CheckVerdict(output["exitCode"], tuple(output["lastLines"]))
        if self._commands.test is None:
            return Trial(None, checks)
        doing = f"Running the tests {_WITH[which]}"
        said = await self._step(f"tests-{which}", which, tree, doing, "run_tests", {})
        return Trial(SuiteVerdict(said["exitCode"], said["passed"], said["failed"]), checks)

    async def _step(
        self, key: str, which: Which, tree: str, doing: str, tool: str, asked: dict[str, Any]
    ) -> Any:
        run = partial(self._run, which, tree, doing, tool, asked)
        return await self._job.step(key, run, kind="workspace", request={"tree": tree})

    # Inside a step's call

    async def _run(
        self,
        which: Which,
        tree: str,
        doing: str,
        tool: str,
        asked: dict[str, Any],
        context: StepContext,
    ) -> dict[str, Any]:
        """Run a tool on a tree; whatever it leaves behind is put back."""
        await self._job.progress(_PERCENT[which], doing, doing)
        workspace = await self._bench.ready()
        try:
            await workspace.restore(tree)
            output = await self._output(tool, asked, workspace)
        finally:
            await self._bench.put_back()
        return _tests_said(output) if tool == "run_tests" else _check_said(output)

    async def _output(self, tool: str, asked: dict[str, Any], workspace: Workspace) -> ToolOutput:
        tools = self._tools((tool,))
        try:
            return await tools.run(tool, asked, workspace)
        finally:
            await tools.close()


def _tests_said(output: ToolOutput) -> dict[str, Any]:
    counts = _COUNTS.search(str(output.data.get("summary", "")))
    passed, failed, errors = map(int, counts.groups()) if counts else (None, None, 0)
    return {
        "exitCode": _exit_code(output),
        "passed": passed,
        "failed": None if failed is None else failed + errors,
        "output": output.text,
    }


def _check_said(output: ToolOutput) -> dict[str, Any]:
    _, _, printed = output.text.partition("\n")
    lines = [visible(line)[:LINE_CHARS_MAX] for line in printed.splitlines() if line.strip()]
    return {"exitCode": _exit_code(output), "lastLines": lines[-LINES_KEPT:]}


def _exit_code(output: ToolOutput) -> int | None:
    code = output.data.get("exitCode")
    return None if code == KILLED else code
