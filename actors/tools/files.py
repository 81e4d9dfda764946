"""The file tools' outer half: one sandboxed helper per job, asked over its pipes.

Starting a sandbox costs far more than reading a file, so the helper stays
between calls; it holds no state that matters and is started again whenever it
does not answer, or when the tree it was given is another directory now.
What it does with a request is `inside`'s business.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from actors.sandbox import Sandbox
from actors.tools import inside

INSIDE = "/run/files.py"
CALL_TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 32 << 20
NO_ANSWER = {
    "text": "The file tool gave no answer in time; try a simpler pattern or a smaller part.",
    "is_error": True,
    "data": {},
}


class FileHelper:
    """Serves one workspace; calls run one after another."""

    def __init__(
        self,
        sandbox: Sandbox,
        tree: Path,
        read_only: bool,
        hold: int | None,
        binds: Callable[[], Mapping[str, Path]] = dict,
    ) -> None:
        """
        Args:
            binds: folders seen in the workspace that lie beside it; asked for at each start.
        """
        self._sandbox = sandbox
        self._tree = tree
        self._read_only = read_only
        self._hold = hold
        self._binds = binds
        self._busy = asyncio.Lock()
        self._stack: AsyncExitStack | None = None
        self._serves: tuple[int, int] | None = None
        self._requests: asyncio.WriteTransport
        self._answers: asyncio.StreamReader

    async def ask(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The helper's answer; one that did not come is an error result like any other.

        Raises:
            SandboxError: no helper could be started.
        """
        async with self._busy:
            if self._serves != _identity(self._tree):
                await self._start()
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    return await self._exchange({"name": name, "input": asked})
            except (TimeoutError, EOFError, OSError, ValueError):
                await self._stop()
                return NO_ANSWER
            except BaseException:
                await self._stop()  # the answer on its way belongs to nobody
                raise

    async def close(self) -> None:
        """End the helper; idempotent, and a later call starts another."""
        async with self._busy:
            await self._stop()

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(request).encode()
        self._requests.write(struct.pack(">I", len(body)) + body)
        (size,) = struct.unpack(">I", await self._answers.readexactly(4))
        if size > ANSWER_BYTES_MAX:
            raise ValueError(f"an answer of {size} bytes")
        answer: dict[str, Any] = json.loads(await self._answers.readexactly(size))
        return answer

    async def _start(self) -> None:
        await self._stop()
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(
                self._sandbox.session(
                    (self._sandbox.toolchain.python, "-I", "-S", "-u", INSIDE),
                    workspace=self._tree,
                    read_only=self._read_only,
                    extra_ro_binds={INSIDE: Path(inside.__file__)},
                    binds=self._binds(),
                    hold=self._hold,
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            self._answers = asyncio.StreamReader(limit=1 << 20)
            answers, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(self._answers),
                os.fdopen(process.stdout, "rb", buffering=0),
            )
            stack.callback(answers.close)
            self._requests, _ = await loop.connect_write_pipe(
                asyncio.Protocol, os.fdopen(process.stdin, "wb", buffering=0)
            )
            stack.callback(_abort, self._requests)
            self._serves = _identity(self._tree)
            self._stack = stack.pop_all()

    async def _stop(self) -> None:
        self._serves = None
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()


def _abort(requests: asyncio.WriteTransport) -> None:
    """End a transport that may have ended by itself; that of a pipe does not take it twice."""
    if not requests.is_closing():
        requests.abort()


def _identity(tree: Path) -> tuple[int, int]:
    status = tree.stat()
    return status.st_dev, status.st_ino
