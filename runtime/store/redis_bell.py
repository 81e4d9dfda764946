"""The bell: one subscription by which other clients' commits wake the calls that wait here.

A ring only says "look again".  One that is lost costs a slow look, nothing
else; when the subscription was away everybody looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from runtime.errors import StoreError
from runtime.store.redis_link import Greet, Server, drop

logger = logging.getLogger(__name__)

RETRY_S: Final = 0.25
"""Between two tries to subscribe."""
SILENCE_S: Final = 5.0
"""After this the server is asked whether it is still there."""

Key = tuple[str | int, ...]
_decode: Final = msgspec.msgpack.Decoder(list[Key]).decode


class Bell:
    def __init__(
        self,
        server: Server,
        greet: Greet,
        channels: list[str],
        ring: Callable[[Key], None],
        ring_all: Callable[[], None],
    ) -> None:
        self._server = server
        self._greet = greet
        self._channels = channels
        self._ring = ring
        self._ring_all = ring_all
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.listens = False
        """Whether rings are heard now."""

    def start(self) -> None:
        """Begin to listen, once; as soon as it does, everybody looks."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._server.connect(self._greet)
            except StoreError:
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._listen(connection)
            except (RedisError, OSError, msgspec.MsgspecError) as error:
                logger.info(
                    "the bell of the store was lost: %s", error, extra={"action": "store.unheard"}
                )
            finally:
                self.listens = False
                await drop(connection)

    async def _listen(self, connection: AbstractConnection) -> None:
        await connection.send_command("SUBSCRIBE", *self._channels)
        asked = False
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    heard = await connection.read_response(disconnect_on_error=False)
            except TimeoutError:
                if asked:
                    return
                asked = True
                await connection.send_command("PING")
                continue
            asked = False
            self._heard(heard)

    def _heard(self, heard: list[Any]) -> None:
        match heard:
            case [b"message", _, bytes(rings)]:
                for key in _decode(rings):
                    self._ring(key)
            case [b"subscribe", _, count] if count == len(self._channels):
                self.listens = True
                self._ring_all()
