"""The toolbox: runs the tools that a model asks for on one workspace.

Whatever the model sends, the answer is a result and never an exception: a
wrong name, type, field or path becomes a sentence that says how to do better.
Everything that touches a file runs in the sandbox; only the questions to git
are answered here, from the private git dir.  Recording, snapshots, and what a
control tool leads to are the loop's business.
"""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from actors.errors import GitError, SnapshotRefusedError
from actors.sandbox import WORKSPACE, Completed, Sandbox
from actors.sandbox.command import SYSTEM_PATH
from actors.tools import definitions as tools
from actors.tools import junit
from actors.tools.files import FileHelper
from actors.tools.schema import problems
from actors.tools.text import shortened, visible
from actors.workspace import Workspace

TEST_TIMEOUT_S = 900.0
OUTPUT_BYTES_MAX = 1 << 20
"""Kept of what one command prints."""
COMMAND_BYTES_MAX = 120_000
"""Linux takes no longer argument."""
LOG_COMMITS = 20
BASH = 'cd -- "$1" || exit 126; exec bash -c "$2"'
TESTS = (
    'bash -c "$1" 2>&1 3>&-; code=$?; '
    'if [ -f /tmp/report/junit.xml ]; then cat /tmp/report/junit.xml >&3; fi; exit "$code"'
)
TEST_ENVIRONMENT = {
    "PYTEST_ADDOPTS": "--junitxml=/tmp/report/junit.xml -o cache_dir=/tmp/report/cache",
    "CI": "true",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
LOG_FORMAT = "%h %ad %an: %s"


class Commands(Protocol):
    """How the repository is set up and checked, as its policy says."""

    @property
    def setup(self) -> str | None: ...
    @property
    def test(self) -> str | None: ...
    @property
    def lint(self) -> str | None: ...
    @property
    def types(self) -> str | None: ...


class Artifacts(Protocol):
    """Content by its SHA-256."""

    async def put(self, name: str, content: bytes) -> str: ...
    async def get(self, sha256: str) -> bytes | None: ...


@dataclass(frozen=True)
class ToolOutput:
    """A tool's result."""

    text: str
    """For the model: at most 16,000 characters, nothing invisible."""
    is_error: bool = False
    full: bytes | None = None
    """All of a text that was shortened; to be stored: `text` names it by its SHA-256."""
    data: dict[str, Any] = field(default_factory=dict)
    """For the loop, JSON-able; of a control tool its checked input."""
    changed: tuple[str, ...] | None = ()
    """Paths that may have changed, for `Workspace.snapshot`; None: any."""


class ToolBox:
    """Made for one job; remembers what was read, and what failed last."""

    def __init__(
        self,
        workspace: Workspace,
        sandbox: Sandbox,
        policy_commands: Commands,
        artifacts: Artifacts,
        *,
        read_only: bool = False,
        names: Sequence[str] = tools.NAMES,
    ) -> None:
        """
        Args:
            read_only: nothing in the workspace can be changed, by any tool.
            names: the tools that may be used.
        """
        self._workspace = workspace
        self._sandbox = sandbox
        self._commands = policy_commands
        self._artifacts = artifacts
        self._read_only = read_only
        self._names = tuple(name for name in names if not (read_only and name in _WRITERS))
        self._files = FileHelper(sandbox, workspace.tree_path, read_only, workspace.lock_handle,
                                 self._binds)  # fmt: skip
        self._seen: dict[str, str] = {}
        self._failing: tuple[str, ...] = ()

    def definitions(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The tools as the Messages API takes them, in the order of `names`."""
        offered = self._names if names is None else [n for n in names if n in self._names]
        return [tools.definition(name) for name in offered]

    def kind(self, name: str) -> tools.ToolKind:
        """How an interrupted call is settled; an unknown tool is `pure`: it does nothing."""
        if name not in self._names:
            return "pure"
        kind = tools.kind(name)
        return "pure" if self._read_only and kind == "workspace" else kind

    async def run(self, name: str, input: Any) -> ToolOutput:
        """Run one tool.

        Raises:
            SandboxRefusedError, SandboxError, DiskFullError: not the model's doing.
        """
        if name not in self._names:
            near = difflib.get_close_matches(name, self._names, 1)
            hint = f" Did you mean {near[0]}?" if near else f" There are {', '.join(self._names)}."
            return _wrong(f"There is no tool {name[:60]!r}.{hint}")
        if wrong := problems(tools.schema(name), input):
            return _wrong(" ".join(wrong))
        if tools.kind(name) == "control":
            return ToolOutput("", data=dict(input))
        try:
            output = await self._handler(name)(name, input)
        except GitError as error:  # an operand that git does not take
            return _wrong(str(error.args[-1]))
        except SnapshotRefusedError as error:
            return _wrong(str(error))
        self.remember(output)
        return output

    def remember(self, output: ToolOutput) -> None:
        """Take note of a result; of recorded ones too, when a job is resumed."""
        if "sha256" in output.data:
            self._seen[output.data["path"]] = output.data["sha256"]
        if "failing" in output.data:
            self._failing = tuple(output.data["failing"])

    async def close(self) -> None:
        """End what runs between calls; to be called before the workspace is left."""
        await self._files.close()

    def _handler(self, name: str) -> Callable[[str, dict[str, Any]], Awaitable[ToolOutput]]:
        return {
            "bash": self._bash,
            "run_tests": self._run_tests,
            "git_diff": self._git_diff,
            "git_log": self._git_log,
            "git_blame": self._git_blame,
            "artifact_read": self._artifact_read,
        }.get(name, self._file_tool)

    async def _file_tool(self, name: str, asked: dict[str, Any]) -> ToolOutput:
        if name in _WRITERS and self._is_the_setups(asked["path"]):
            return _wrong("The setup command made this; it can't be part of your change.")
        request = {**asked, "seen": self._seen} if name == "write" else asked
        answer = await self._files.ask(name, request)
        changed: tuple[str, ...] | None = ()
        if name in _WRITERS:
            # Without an answer nobody knows how far it came.
            changed = (answer["data"]["path"],) if "path" in answer["data"] else None
        return _output(visible(answer["text"]), answer["is_error"], answer["data"], changed)

    async def _bash(self, name: str, asked: dict[str, Any]) -> ToolOutput:
        command, cwd = asked["command"], asked.get("cwd", ".")
        if wrong := _unusable(command) or _unusable(cwd):
            return _wrong(wrong)
        done = await self._sandbox.run(
            ["bash", "-c", command] if cwd == "." else ["bash", "-c", BASH, "bash", cwd, command],
            workspace=self._workspace.tree_path,
            read_only=self._read_only,
            timeout_s=asked.get("timeout_s", tools.COMMAND_TIMEOUT_S),
            env=self._environment,
            binds=self._binds(),
            output_bytes_max=OUTPUT_BYTES_MAX,
            merge_streams=True,
            hold=self._workspace.lock_handle,
        )
        text = f"{_ending(done)}\n{visible(done.stdout)}"
        stopped = done.stopped is not None
        return _output(text, stopped, {"exitCode": done.exit_code}, self._anything)

    async def _run_tests(self, name: str, asked: dict[str, Any]) -> ToolOutput:
        command = self._commands.test
        if command is None:
            return _wrong("No test command is configured for this repository; use bash.")
        targets = list(asked.get("targets", ()))
        if asked.get("last_failed"):
            if not self._failing:
                return _wrong("No failing test is known; run without last_failed.")
            targets += self._failing
        if any(target.startswith("-") for target in targets):
            return _wrong("A target is a test file or test id, not an option.")
        line = f"{command} {shlex.join(targets)}" if targets else command
        if wrong := _unusable(line):
            return _wrong(wrong)
        done = await self._sandbox.run(
            ["bash", "-c", f"mkdir -p /tmp/report; exec 3>&2; {TESTS}", "bash", line],
            workspace=self._workspace.tree_path,
            read_only=self._read_only,
            timeout_s=TEST_TIMEOUT_S,
            env={**self._environment, **TEST_ENVIRONMENT},
            binds=self._binds(),
            output_bytes_max=OUTPUT_BYTES_MAX,
            hold=self._workspace.lock_handle,
        )
        return self._test_output(done)

    def _test_output(self, done: Completed) -> ToolOutput:
        report = junit.parse(done.stderr)
        lines = [f"{_ending(done)}: tests {'PASSED' if done.exit_code == 0 else 'FAILED'}"]
        data: dict[str, Any] = {"exitCode": done.exit_code, "passed": done.exit_code == 0}
        if report is not None:
            lines.append(f"The runner reports {report.summary}.")
            lines += [f"--- {visible(shown)}" for shown in report.shown]
            data |= {"summary": report.summary, "failing": list(report.failing)}
        lines += ["--- output", visible(done.stdout)]
        return _output("\n".join(lines), done.stopped is not None, data, self._anything)

    async def _git_diff(self, name: str, asked: dict[str, Any]) -> ToolOutput:
        tree = self._workspace.current_tree or await self._workspace.snapshot()
        paths = [_in_tree(path) for path in asked.get("paths", ())]
        diff = await self._workspace.diff(self._workspace.base_tree, tree, paths)
        return _output(visible(diff) or "Nothing has changed.")

    async def _git_log(self, name: str, asked: dict[str, Any]) -> ToolOutput:
        return await self._ask_git(
            "log", f"--max-count={asked.get('n', LOG_COMMITS)}", f"--format={LOG_FORMAT}",
            "--date=short", self._workspace.base_commit, "--", path=asked.get("path"),
        )  # fmt: skip

    async def _git_blame(self, name: str, asked: dict[str, Any]) -> ToolOutput:
        if asked["start"] > asked["end"]:
            return _wrong("start must not be greater than end.")
        return await self._ask_git(
            "blame", "--no-textconv", "--date=short", f"-L{asked['start']},{asked['end']}",
            self._workspace.base_commit, "--", path=asked["path"],
        )  # fmt: skip

    async def _ask_git(self, *args: str, path: str | None) -> ToolOutput:
        operands = [] if path is None else [_in_tree(path)]
        said = await self._workspace.git.run(*args, *operands)
        return _output(visible(said.stdout) or "Nothing.")

    async def _artifact_read(self, name: str, asked: dict[str, Any]) -> ToolOutput:
        known = _SHA256.fullmatch(asked["id"])
        content = await self._artifacts.get(asked["id"]) if known else None
        if content is None:
            return _wrong("There is no such artifact.")
        text = visible(content)
        begin, end = asked["offset"], asked["offset"] + asked["limit"]
        part = text[begin:end]
        return _output(f"[{begin} to {begin + len(part)} of {len(text)} characters]\n{part}")

    # What the setup made

    def _binds(self) -> Mapping[str, Path]:
        laid = self._workspace.laid
        return laid.binds(self._workspace.tree_path) if laid is not None else {}

    @property
    def _environment(self) -> Mapping[str, str]:
        laid = self._workspace.laid
        bins = (*self._sandbox.toolchain.bin, SYSTEM_PATH)
        return laid.environment(bins) if laid is not None else {}

    def _is_the_setups(self, path: str) -> bool:
        laid = self._workspace.laid
        plain = posixpath.normpath(path.removeprefix(f"{WORKSPACE}/"))
        return laid is not None and laid.covers(plain)

    @property
    def _anything(self) -> tuple[str, ...] | None:
        return () if self._read_only else None


_WRITERS = ("edit", "write")


def _wrong(sentence: str) -> ToolOutput:
    return ToolOutput(shortened(visible(sentence))[0], is_error=True)


def _output(
    text: str,
    is_error: bool = False,
    data: dict[str, Any] | None = None,
    changed: tuple[str, ...] | None = (),
) -> ToolOutput:
    short, full = shortened(text)
    return ToolOutput(short, is_error, full, data or {}, changed)


def _in_tree(path: str) -> str:
    """A path from the repository's root as git takes it.

    Raises:
        GitError: no command could take it.
    """
    if wrong := _unusable(path):
        raise GitError(wrong)
    return path.removeprefix("/workspace/") or "."


def _unusable(argument: str) -> str:
    """Why a text can't be an argument of a command; empty if it can."""
    if "\0" in argument:
        return "A NUL can't be passed to a command."
    if len(argument.encode()) > COMMAND_BYTES_MAX:
        return f"More than {COMMAND_BYTES_MAX} bytes can't be passed; write a file and run it."
    return ""


def _ending(done: Completed) -> str:
    """How a command ended, in words."""
    why = {
        "timeout": f"killed after {done.duration_ms / 1000:.0f} s",
        "output": "killed: it printed too much",
        "disk": "killed: the disk is nearly full",
        "memory": "killed: it used too much memory",
    }
    code = f"exit code {done.exit_code}"
    return f"{code} ({why[done.stopped]})" if done.stopped else code
