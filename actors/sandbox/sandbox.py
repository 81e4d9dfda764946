"""The sandbox: runs a command where it can harm nothing but its workspace.

No command is run before an escape self-test has held on this machine, and none
is ever run with less than that: a machine that can't hold it gets
`SandboxRefusedError`.  A run ends with everything it started.  What is inside
is `command`'s business, what the self-test tries is `probe`'s.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from actors.errors import DiskFullError, SandboxError
from actors.sandbox.command import Box, Programs, Toolchain, inner, options, owner_of
from actors.sandbox.limits import Group, Groups, Limits
from actors.sandbox.orphans import kill_orphans
from actors.sandbox.probe import SandboxReport, judge, question
from actors.sandbox.process import Plan, SandboxProcess, adopt_orphans
from actors.sandbox.seccomp import program
from actors.sandbox.streams import HeadTail, Reader, Writer

OUTPUT_BYTES_MAX = 4 << 20
DISK_POLL_S = 0.5
PROBE_TIMEOUT_S = 60.0
Stopped = Literal["timeout", "output", "disk", "memory"]


@dataclass(frozen=True)
class Completed:
    """How a run ended."""

    exit_code: int
    """128 + n if a signal ended it; 137 if it was stopped."""
    stdout: bytes
    stderr: bytes
    truncated: bool
    """The middle of a stream was not kept; a line in it says how much."""
    timed_out: bool
    duration_ms: int
    stopped: Stopped | None = None
    """Why it was killed, if it was: its time, its output, the disk, or its memory was over."""


class Sandbox:
    """Makes sandboxes; one object serves a whole process and many runs at once."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        ro_binds: Mapping[str, Path] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            ro_binds: more of the machine that every command may read, path inside to
                path outside: toolchains that the operator trusts.
        """
        self.limits = limits
        self.toolchain = Toolchain.current()
        self._ro_binds = dict(ro_binds or {})
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._report: SandboxReport | None = None
        self._programs: Programs | None = None
        self._groups: Groups | None = None
        self._seccomp = b""

    async def probe(self) -> SandboxReport:
        """Try to escape, once; the answer is remembered.

        Raises:
            SandboxRefusedError: something got out, or what is needed is not installed.
            DiskFullError: there is no room to try.
        """
        if self._report is not None:
            return self._report
        async with self._lock:
            if self._report is None:
                self._programs = Programs.find()
                self._seccomp = program(os.uname().machine)
                adopt_orphans()
                kill_orphans()
                self._groups = Groups.detect()
                async with question(self.toolchain) as asked:
                    box = self._box(asked.workspace, False, None, asked.binds)
                    done = await self._run(asked.argv, box, timeout_s=PROBE_TIMEOUT_S)
                    self._report = await judge(
                        asked, done.stdout, done.stderr, self._groups is not None
                    )
        return self._report

    async def run(
        self,
        argv: Sequence[str],
        *,
        workspace: Path,
        read_only: bool = False,
        timeout_s: float = 120.0,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        output_bytes_max: int = OUTPUT_BYTES_MAX,
        extra_ro_binds: Mapping[str, Path] | None = None,
        binds: Mapping[str, Path] | None = None,
        merge_streams: bool = False,
        hold: int | None = None,
    ) -> Completed:
        """Run a command in `workspace`, mounted at /workspace, and wait for its end.

        Cancelling the call kills the run; on return, however it comes about, no
        process of it is left.

        Args:
            env: added to the sandbox's own environment; nothing of ours is inherited.
            output_bytes_max: kept of each stream: half from its head, half from its tail.
            extra_ro_binds: path inside to path outside.
            binds: the same, to be written to; what they cover is there already.
            merge_streams: standard error in order with standard output.
            hold: an open file that stays open as long as anything of the run lives.

        Raises:
            SandboxRefusedError: this machine can't isolate commands.
            SandboxError: the sandbox could not be started; nothing was run.
            DiskFullError: the workspace's disk is nearly full; nothing was run.
        """
        await self.probe()
        box = self._box(workspace, read_only, env, extra_ro_binds, binds)
        return await self._run(
            argv, box, timeout_s=timeout_s, stdin=stdin, output_bytes_max=output_bytes_max,
            merge=merge_streams, hold=hold,
        )  # fmt: skip

    @asynccontextmanager
    async def session(
        self,
        argv: Sequence[str],
        *,
        workspace: Path,
        read_only: bool = False,
        extra_ro_binds: Mapping[str, Path] | None = None,
        binds: Mapping[str, Path] | None = None,
        hold: int | None = None,
    ) -> AsyncIterator[SandboxProcess]:
        """A process to speak with over its standard input and output.

        Both descriptors belong to the caller.  The process is killed at the end of
        the block; what it complains of is dropped.

        Raises: as `run`.
        """
        await self.probe()
        box = self._box(workspace, read_only, None, extra_ro_binds, binds)
        process = await SandboxProcess.start(self._plan(argv, box, hold, False, interactive=True))
        assert process.stderr is not None
        complaints = Reader(process.stderr, HeadTail(0), 1 << 60, process.kill)
        try:
            yield process
        finally:
            process.kill()
            await asyncio.shield(process.gone.wait())
            complaints.close()

    def _box(
        self,
        workspace: Path,
        read_only: bool,
        env: Mapping[str, str] | None,
        ro_binds: Mapping[str, Path] | None,
        binds: Mapping[str, Path] | None = None,
    ) -> Box:
        if _free_bytes(workspace) < self.limits.disk_free_bytes_min:
            raise DiskFullError(str(workspace.parent))
        read = {**self._ro_binds, **(ro_binds or {})}
        return Box(workspace, read_only, env or {}, read, binds or {})

    def _plan(
        self, argv: Sequence[str], box: Box, hold: int | None, merge: bool, interactive: bool
    ) -> Plan:
        assert self._programs is not None, "probed"
        owner = owner_of(box.workspace)
        groups = self._groups
        command = inner(argv, owner, self._programs, interactive)
        if any("\0" in word for word in command):
            raise SandboxError("a NUL in the command")
        return Plan(
            bwrap=self._programs.bwrap,
            options=lambda files: options(box, owner, self.toolchain, self.limits, files),
            inner=command,
            owner=owner,
            seccomp=self._seccomp,
            group=self._group(),
            limits=self.limits,
            on_over=groups.end if groups is not None else lambda group: None,
            hold=hold,
            merge=merge,
            interactive=interactive,
        )

    def _group(self) -> Group | None:
        try:
            return self._groups.make(self.limits) if self._groups is not None else None
        except OSError as error:
            raise SandboxError(f"no control group: {error}") from error

    async def _run(
        self,
        argv: Sequence[str],
        box: Box,
        *,
        timeout_s: float,
        stdin: bytes | None = None,
        output_bytes_max: int = OUTPUT_BYTES_MAX,
        merge: bool = False,
        hold: int | None = None,
    ) -> Completed:
        plan = self._plan(argv, box, hold, merge, interactive=stdin is not None)
        began = self._monotonic()
        run = _Run(await SandboxProcess.start(plan), plan, self.limits, output_bytes_max)
        try:
            await run.wait(stdin, timeout_s, box.workspace)
        finally:
            await run.end()
        return run.completed(round((self._monotonic() - began) * 1000))


class _Run:
    """Watches one process: its output, its time and the disk."""

    def __init__(self, process: SandboxProcess, plan: Plan, limits: Limits, kept: int) -> None:
        self._process = process
        self._plan = plan
        self._limits = limits
        self._stopped: Stopped | None = None
        self._writer: Writer | None = None
        self._kept = {
            fd: HeadTail(kept) for fd in (process.stdout, process.stderr) if fd is not None
        }
        self._readers = [
            Reader(fd, buffer, limits.stream_bytes_max, lambda: self._stop("output"))
            for fd, buffer in self._kept.items()
        ]

    async def wait(self, stdin: bytes | None, timeout_s: float, workspace: Path) -> None:
        if self._process.stdin is not None:
            self._writer = Writer(self._process.stdin, stdin or b"")
        watching = asyncio.ensure_future(self._watch_disk(workspace))
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.exited.wait()
        except TimeoutError:
            self._stop("timeout")
        finally:
            watching.cancel()

    async def end(self) -> None:
        """Kill what is left, and read what it had printed."""
        self._process.kill()
        await asyncio.shield(self._over())

    async def _over(self) -> None:
        await self._process.gone.wait()
        await self._process.exited.wait()
        if self._writer is not None:
            self._writer.close()
        for reader in self._readers:
            await reader.done.wait()
        if self._stopped is None and self._process.out_of_memory:
            self._stopped = "memory"

    def completed(self, duration_ms: int) -> Completed:
        contents = [buffer.content() for buffer in self._kept.values()]
        code = self._process.exit_code
        return Completed(
            exit_code=137 if code is None else code,
            stdout=contents[0],
            stderr=contents[1] if len(contents) > 1 else b"",
            truncated=any(buffer.elided for buffer in self._kept.values()),
            timed_out=self._stopped == "timeout",
            duration_ms=duration_ms,
            stopped=self._stopped,
        )

    def _stop(self, reason: Stopped) -> None:
        self._stopped = self._stopped or reason
        self._process.kill()

    async def _watch_disk(self, workspace: Path) -> None:
        while True:
            if _free_bytes(workspace) < self._limits.disk_free_bytes_min:
                return self._stop("disk")
            await asyncio.sleep(DISK_POLL_S)


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
