"""The outside of a chaos run: a socket that counts the calls of jobs, and answers them.

It lives in the process that judges, which is never killed.  A call that has
reached it has happened, whatever becomes of the host that made it.

    request   one line of JSON {"key", "takesS"}     answer   one line of JSON, the result
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

from runtime.clock import SystemClock

CLOCK: Final = SystemClock()


class Called(NamedTuple):
    """One call."""

    began_ms: int
    result: str


class Outside:
    """Serves until closed; `calls` are by idempotency key, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: dict[str, list[Called]] = defaultdict(list)
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
            made = self.calls[asked["key"]]
            result = f"{asked['key']}#{len(made) + 1}"
            made.append(Called(CLOCK.now_ms(), result))
            await asyncio.sleep(asked["takesS"])
            writer.write(json.dumps(result).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):  # whoever asked was killed
            return
        finally:
            writer.close()


async def call(path: str, key: str, takes_s: float) -> str:
    """Call the outside, from a host.

    Raises:
        OSError: it is not there.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(json.dumps({"key": key, "takesS": takes_s}).encode() + b"\n")
        await writer.drain()
        return str(json.loads(await reader.readline()))
    finally:
        writer.close()
