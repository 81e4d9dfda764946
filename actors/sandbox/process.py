"""One sandboxed process from its start to the end of everything it started.

`gone` is set only when the first process of the sandbox has ended, which is
after the kernel has killed every other one in it; a daemon can't outlive its
run.  The death of this process kills the sandbox too (PR_SET_PDEATHSIG).  What
to run in which surroundings comes from `command`.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import IO, TypeVar

from actors.errors import SandboxError
from actors.sandbox.command import SYSTEM_PATH, Descriptors, accounts
from actors.sandbox.limits import Group, Limits, set_rlimits

T = TypeVar("T")

START_TIMEOUT_S = 30.0
STATUS_BYTES_MAX = 1 << 14
COMPLAINT_BYTES_MAX = 2_000
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Plan:
    """All that is needed to start."""

    bwrap: str
    options: Callable[[Descriptors], list[str]]
    inner: Sequence[str]
    owner: int | None
    seccomp: bytes
    limits: Limits
    group: Group | None
    on_over: Callable[[Group], None]
    """Called with the group when nothing is in it any more."""
    hold: int | None
    """An open file of ours, kept open by the sandbox as long as it lives."""
    merge: bool
    """Standard error goes where standard output goes."""
    interactive: bool
    """Standard input is a pipe that stays open; else it is empty."""


class SandboxProcess:
    """A started sandbox; the descriptors of its pipes belong to the caller."""

    def __init__(
        self, plan: Plan, popen: subprocess.Popen[bytes], status_read: int, block_write: int
    ) -> None:
        self._plan = plan
        self._popen = popen
        self._status_read = status_read
        self._block_write = block_write
        self._loop = asyncio.get_running_loop()
        self._pidfds: list[int] = []
        self._status = bytearray()
        self._first: asyncio.Future[int] = self._loop.create_future()
        self.exited = asyncio.Event()
        """bubblewrap has ended, so the command has."""
        self.gone = asyncio.Event()
        """Nothing of the sandbox runs any more."""
        self.out_of_memory = False
        """The kernel killed something of it; known once it is gone."""
        self.stdin = _detach(popen.stdin)
        self.stdout = _detach(popen.stdout)
        self.stderr = _detach(popen.stderr)

    @classmethod
    async def start(cls, plan: Plan) -> SandboxProcess:
        """Start it; on return the command runs and is counted in its group.

        Raises:
            SandboxError: bubblewrap could not be started; nothing was run.
        """
        starting = asyncio.ensure_future(cls._started(plan))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(_abandon(starting)))
            raise

    @classmethod
    async def _started(cls, plan: Plan) -> SandboxProcess:
        try:
            process = cls(plan, *await _on_spawner(lambda: _launch(plan)))
        except SandboxError:
            if plan.group is not None:
                plan.on_over(plan.group)
            raise
        try:
            await process._begin()
        except SandboxError:
            await process.end()
            raise
        return process

    async def end(self) -> None:
        """Kill it, wait until nothing of it is left, and close its pipes."""
        self.kill()
        await self.exited.wait()
        await self.gone.wait()
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd is not None:
                os.close(fd)

    def kill(self) -> None:
        """Kill all of it at once; `gone` follows."""
        for fd in self._pidfds:
            with suppress(ProcessLookupError, OSError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)

    @property
    def exit_code(self) -> int | None:
        """Of the command (128 + n: signal n); None if it was killed or never began."""
        for line in self._status.decode(errors="replace").splitlines():
            with suppress(ValueError, TypeError):
                code = json.loads(line).get("exit-code")
                if isinstance(code, int):
                    return code
        return None

    async def _begin(self) -> None:
        os.set_blocking(self._status_read, False)
        self._loop.add_reader(self._status_read, self._read_status)
        self._watch(self._popen.pid, self._exited)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                first = await self._first
            self._watch(first, self._gone)
            set_rlimits(first, self._plan.limits, self._plan.group is not None)
            group = self._plan.group
            if group is not None and group.v2:
                await _on_spawner(lambda: group.add(first))
            os.write(self._block_write, b"x")
            self._open_gate()
        except (OSError, TimeoutError, SandboxError) as error:
            self.kill()
            await self.exited.wait()
            raise SandboxError(self._complaint() or str(error)) from error
        finally:
            os.close(self._block_write)

    def _open_gate(self) -> None:
        """Let the command begin; see `command.inner`."""
        assert self.stdin is not None
        with suppress(BrokenPipeError):  # it has already been killed
            os.write(self.stdin, b"\n")
        if not self._plan.interactive:
            os.close(self.stdin)
            self.stdin = None

    def _complaint(self) -> str:
        """What bubblewrap said when it could not begin."""
        fd = self.stdout if self.stderr is None else self.stderr
        assert fd is not None
        os.set_blocking(fd, False)
        with suppress(BlockingIOError):
            return os.read(fd, COMPLAINT_BYTES_MAX).decode(errors="replace").strip()
        return ""

    def _watch(self, pid: int, ended: Callable[[int], None]) -> None:
        fd = os.pidfd_open(pid)
        self._pidfds.append(fd)
        self._loop.add_reader(fd, ended, fd)

    def _exited(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        self._popen.wait()
        self._close_status()
        self.kill()  # what the command left running in the background
        self.exited.set()
        if len(self._pidfds) == 1:  # it never had a first process
            self.gone.set()
        self._end_when_over()

    def _gone(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        self.gone.set()
        self._end_when_over()

    def _end_when_over(self) -> None:
        if self.gone.is_set() and self.exited.is_set():
            for fd in self._pidfds:
                os.close(fd)
            self._pidfds.clear()
            if self._first.done() and not self._first.exception():
                with suppress(ChildProcessError):  # bubblewrap has waited for it
                    os.waitpid(self._first.result(), os.WNOHANG)
            if self._plan.group is not None:
                self.out_of_memory = self._plan.group.out_of_memory()
                self._plan.on_over(self._plan.group)

    def _read_status(self) -> None:
        """Take what bubblewrap tells of itself: its first process, and the exit code."""
        try:
            chunk = os.read(self._status_read, STATUS_BYTES_MAX)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(self._status_read)
        self._status += chunk
        if not self._first.done() and b"\n" in self._status:
            line = json.loads(self._status.split(b"\n")[0])
            self._first.set_result(int(line["child-pid"]))

    def _close_status(self) -> None:
        self._read_status()  # the exit code may have come together with the end
        self._loop.remove_reader(self._status_read)
        os.close(self._status_read)
        if not self._first.done():
            self._first.set_exception(SandboxError("bubblewrap ended before it began"))


def adopt_orphans() -> None:
    """Let this process wait for the processes that its children leave behind.

    bubblewrap often ends before the sandbox's first process does; where process 1 of a
    container waits for nobody, each run would leave a dead entry in the process table.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def _abandon(starting: asyncio.Future[SandboxProcess]) -> None:
    """End what nobody waits for any more."""
    # bubblewrap must come so far that its death reaches its child, then it is killed.
    await asyncio.wait([starting])
    if starting.exception() is None:
        await starting.result().end()


@cache
def _spawner() -> ThreadPoolExecutor:
    """The thread that starts every sandbox of this process.

    It lives as long as the process, because a sandbox dies with the thread that started it.
    """
    return ThreadPoolExecutor(1, "sandbox")


os.register_at_fork(after_in_child=_spawner.cache_clear)  # a thread does not come along


async def _on_spawner(work: Callable[[], T]) -> T:
    return await asyncio.wrap_future(_spawner().submit(work))


def _launch(plan: Plan) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start bubblewrap, held before the command; with our ends of its two pipes."""
    status_read, status_write = os.pipe()
    block_read, block_write = os.pipe()
    made = [status_write, block_read]
    passwd, group = accounts(plan.owner)
    try:
        files = Descriptors(
            seccomp=_memory_file(plan.seccomp, made),
            passwd=_memory_file(passwd, made),
            group=_memory_file(group, made),
            status=status_write,
            block=block_read,
            hold=plan.hold,
        )
        argument_file = _memory_file("\0".join(plan.options(files)).encode(), made)
        popen = _spawn(plan, argument_file, made)
    except (OSError, ValueError) as error:
        os.close(status_read)
        os.close(block_write)
        raise SandboxError(str(error)) from error
    finally:
        for fd in made:
            os.close(fd)
    return popen, status_read, block_write


def _memory_file(content: bytes, made: list[int]) -> int:
    fd = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    made.append(fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _spawn(plan: Plan, argument_file: int, made: Sequence[int]) -> subprocess.Popen[bytes]:
    # The options travel in a file: the command line can be read inside, in /proc/1/cmdline.
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [plan.bwrap, "--args", str(argument_file), "--", *plan.inner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if plan.merge else subprocess.PIPE,
            env={"PATH": SYSTEM_PATH},
            cwd="/",
            pass_fds=[*made, *([plan.hold] if plan.hold is not None else [])],
            start_new_session=True,
            bufsize=0,
        )

    return start() if plan.group is None else plan.group.started(start)


def _detach(pipe: IO[bytes] | None) -> int | None:
    """Take a pipe's descriptor out of its file object, which would close it unasked."""
    if pipe is None:
        return None
    fd = os.dup(pipe.fileno())
    pipe.close()
    return fd
