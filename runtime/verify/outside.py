"""The outside that jobs call: counts calls by idempotency key, dawdles and fails as planned.

A call that has reached it has happened, whatever becomes of the caller.
Whoever asks by its key is told what it answered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from runtime.errors import TroupeError
from runtime.job import StepContext
from runtime.verify.history import Call, History, Kind
from runtime.verify.network import Boundary
from runtime.verify.process import current


class OutsideError(TroupeError):
    """The outside was not able to do it this time."""


class Outside:
    def __init__(self, history: History) -> None:
        self.numbered = True
        """Whether an answer says which call for its key it is of."""
        self.boundary: Boundary | None = None
        self.calls: Counter[str] = Counter()
        """By idempotency key."""
        self.duplicates = 0
        """Calls for a key that had been called before and had not failed."""
        self._history = history
        self._done: dict[str, str] = {}
        """What was answered, by key; kept for those that ask."""

    @property
    def total(self) -> int:
        return self.calls.total()

    def begin(self, job: str, run: str) -> None:
        """A run of process_task says its name."""
        process = current()
        name = process.name if process else ""
        self._history.add(name, "invoke", "run", key=job, value=run)

    async def call(self, context: StepContext, plan: dict[str, Any], run: str) -> str:
        """One call of a step, by the process that this code runs in; see `answer`."""
        process = current()
        proc = process.name if process else ""
        return await self.answer(proc, context.idempotency_key, context.repeated, plan, run)

    async def answer(
        self, proc: str, key: str, repeated: bool, plan: dict[str, Any], run: str
    ) -> str:
        """
        Args:
            repeated: whether the step was begun before.
            plan: {"key", "kind", "takesS", "fails": how many first calls fail, "asks": bool}.
            run: names the run that calls.

        Raises:
            OutsideError: as planned.
        """
        if repeated and plan["asks"] and key in self._done:
            self._note(proc, "ok", key, plan, run, self._done[key], "lookup")
            return self._done[key]
        await self._boundary("before")
        self.calls[key] += 1
        number = self.calls[key]
        fails = number <= plan["fails"]
        self.duplicates += number > plan["fails"] + 1
        result = f"{plan['key']}#{number}" if self.numbered else plan["key"]
        if not fails:
            self._done[key] = result
        self._note(proc, "invoke", key, plan, run)
        if plan["takesS"]:
            await asyncio.sleep(plan["takesS"])
        if fails:
            self._note(proc, "fail", key, plan, run)
            raise OutsideError(key)
        self._note(proc, "ok", key, plan, run, result)
        await self._boundary("after")
        return result

    async def _boundary(self, when: str) -> None:
        process = current()
        if self.boundary is not None and process is not None:
            self.boundary(process, f"{when} call")
            if not process.alive:
                await process.end_here()

    def _note(
        self,
        proc: str,
        type: Kind,
        key: str,
        plan: dict[str, Any],
        run: str,
        result: str = "",
        f: str = "call",
    ) -> None:
        call = Call(plan["key"], plan["kind"], run, result, plan["costUsd"])
        self._history.add(proc, type, f, key=key, value=call)
