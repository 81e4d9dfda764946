"""Calling a handler, and ending one that takes too long.

One clock looks after all handlers of a host: a timer for each turn took a
twentieth of the turn's time.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from runtime.agent import BaseAgent
from runtime.message import Message

TURN_TIMEOUT_S = 60.0
"""A handler that takes longer has failed, as soon as its host looks."""
_OVERDUE: Final = -1.0


class Calling:
    """The handler of one agent that runs, if any."""

    __slots__ = ("_began_s",)

    def __init__(self) -> None:
        self._began_s: float | None = None
        """When it was called; _OVERDUE: it has been told to end."""

    async def call(self, agent: BaseAgent, message: Message, first: bool) -> Any:
        """What the handler returns.

        Raises:
            TimeoutError: it took too long.
        """
        self._began_s = asyncio.get_running_loop().time()
        try:
            if first:
                await agent.initialize()
            return await agent.receive_message(message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._began_s != _OVERDUE or task is None or task.uncancel():
                raise
            raise TimeoutError(f"it took longer than {TURN_TIMEOUT_S:.0f} s") from None
        finally:
            self._began_s = None

    def check(self, now_s: float, task: asyncio.Task[None]) -> None:
        """Cancel the handler, which runs in `task`, if its time is over."""
        began_s = self._began_s
        if began_s is not None and began_s != _OVERDUE and now_s - began_s > TURN_TIMEOUT_S:
            self._began_s = _OVERDUE
            task.cancel()
