"""Simulated processes: what asyncio tasks are to one event loop, killable like the real thing.

A task belongs to the process in whose context it was created.  A killed
process is gone between two instructions: no `finally`, no `except
CancelledError` and no callback of it ever runs again.  A frozen one (SIGSTOP)
does nothing until it thaws and then goes on, not knowing that time has passed.

This is done by `_Mortal`, which stands between asyncio and each coroutine and
does not step it while its process is dead or frozen.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from runtime.verify.loop import LoopClock, VirtualLoop

T = TypeVar("T")

_process: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """One process: its tasks, its clock, its randomness."""

    def __init__(self, name: str, seed: str, offset_ms: int = 0) -> None:
        """Args: name: unique within a run (`host-1#3`); offset_ms: its clock's error."""
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(self.loop, offset_ms)
        self.random = random.Random(f"{seed}/{name}")  # noqa: S311 - no secret: it must repeat
        self.alive = True
        self.steps_left = -1
        """Steps of its tasks until it dies by itself; negative: it does not."""
        self.on_death: list[Callable[[], None]] = []
        self._frozen: list[asyncio.Future[None]] | None = None
        """What the tasks of a frozen process wait for."""
        self._tasks: dict[asyncio.Task[Any], _Mortal] = {}
        if isinstance(self.loop, VirtualLoop):
            self.loop.at_end.append(self.bury)

    @property
    def runs(self) -> bool:
        return self.alive and self._frozen is None

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in this process."""
        context = copy_context()
        context.run(_process.set, self)
        return context.run(self.loop.create_task, work)

    def kill(self) -> None:
        """Nothing of it runs on; what it has sent may still arrive. Idempotent."""
        if self.alive:
            self.alive = False
            for tell in self.on_death:
                tell()

    def freeze(self) -> None:
        if self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        held, self._frozen = self._frozen, None
        for future in held or ():
            if not future.done():
                future.set_result(None)

    async def end_here(self) -> None:
        """Die at this very await."""
        self.kill()
        await self.loop.create_future()

    def bury(self) -> None:
        """After the run: throw away what its tasks were doing. Idempotent."""
        self.kill()
        context = copy_context()
        context.run(_process.set, self)
        while self._tasks:  # what one does when it is closed may begin another
            task, coroutine = self._tasks.popitem()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            context.run(coroutine.discard)

    def adopt(self, coroutine: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:
        """A task of this process."""
        mortal = _Mortal(coroutine, self)
        task: asyncio.Task[T] = asyncio.Task(mortal, loop=self.loop, **options)
        self._tasks[task] = mortal
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def step(self) -> bool:
        """Whether a task may go on now; counts the steps of a process that is to die."""
        if self.steps_left > 0:
            self.steps_left -= 1
            if not self.steps_left:
                self.kill()
        return self.runs

    def hold(self) -> asyncio.Future[None]:
        """What a task waits for instead of going on; for ever when the process is dead."""
        future: asyncio.Future[None] = self.loop.create_future()
        if self.alive and self._frozen is not None:
            self._frozen.append(future)
        future._asyncio_future_blocking = True
        return future


class _Mortal(Coroutine[Any, Any, Any]):
    """A coroutine that is not stepped while its process is dead or frozen."""

    __slots__ = ("__weakref__", "_coroutine", "_process", "_thrown")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], process: Process) -> None:
        self._coroutine = coroutine
        self._process = process
        self._thrown: BaseException | None = None
        """What was thrown into it while it was frozen."""

    def send(self, value: Any) -> Any:
        if not self._process.step():
            return self._process.hold()
        if self._thrown is not None:
            thrown, self._thrown = self._thrown, None
            return self._coroutine.throw(thrown)
        return self._coroutine.send(value)

    def throw(self, error: Any, *more: Any) -> Any:
        if not self._process.step():
            self._thrown = error
            return self._process.hold()
        return self._coroutine.throw(error, *more)

    def close(self) -> None:
        """Nothing: the dead run no `finally`."""

    def discard(self) -> None:
        """Close what was wrapped; whatever it wants to do about it."""
        with suppress(BaseException):  # it may refuse to end; nobody listens to it any more
            self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def task_factory(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    """Give each new task to the process that creates it; set it with `loop.set_task_factory`."""
    context = options.get("context")
    process = context.get(_process) if context is not None else _process.get()
    if process is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    return process.adopt(coroutine, **options)


def current() -> Process | None:
    """The process this code runs in; None: the world around them."""
    return _process.get()
