"""The outside of a chaos run, in the process that judges, which is never killed.

    request   one line of JSON {"proc", "key", "repeated", "plan", "run"}
    answer    one line of JSON {"result"}, or {"error"} where it was planned to fail

A call that has reached it has happened, whatever becomes of the host that made
it.  What it answers, and notes, is the business of `runtime.verify.outside`.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from runtime.job import StepContext
from runtime.verify.chaos.notes import Notes
from runtime.verify.outside import Outside, OutsideError


class OutsideServer:
    """Serves an outside on a socket until closed."""

    def __init__(self, outside: Outside, path: Path) -> None:
        self.path = path
        self._outside = outside
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        self.path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            try:
                answer = {"result": await self._outside.answer(**asked)}
            except OutsideError as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):  # whoever asked was killed
            return
        finally:
            writer.close()


class RemoteOutside:
    """The outside as a worker reaches it, from a host."""

    def __init__(self, path: str, notes: Notes) -> None:
        self._path = path
        self._notes = notes

    def begin(self, job: str, run: str) -> None:
        self._notes.did("run", "invoke", self._notes.now_ns(), key=job, value=run)

    async def call(self, context: StepContext, plan: dict[str, Any], run: str) -> str:
        """
        Raises:
            OutsideError: it failed, as planned.
            OSError: it is not there.
        """
        asked = {
            "proc": self._notes.proc, "key": context.idempotency_key,
            "repeated": context.repeated, "plan": plan, "run": run,
        }  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(json.dumps(asked).encode() + b"\n")
            await writer.drain()
            answer: dict[str, str] = json.loads(await reader.readline())
        finally:
            writer.close()
        if "error" in answer:
            raise OutsideError(answer["error"])
        return answer["result"]
