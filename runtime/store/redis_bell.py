"""The bell: one subscription by which other clients' commits wake the calls that wait here.

A ring only says "look again".  One that is lost costs a slow look, nothing
else; when the subscription was away everybody looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from runtime.errors import StoreError
from runtime.store.redis_link import Greet, Server, drop

logger = logging.getLogger(__name__)

RETRY_S: Final = 0.25
"""From the end of a subscription, or of a try to have one, to the next."""
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
        self._lost = ""
        """Why it was last lost, told once."""
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
            with suppress(StoreError):
                await self._listen(await self._server.connect(self._greet))
            await asyncio.sleep(RETRY_S)

    async def _listen(self, connection: AbstractConnection) -> None:
        try:
            await self._hear(connection)
        except (RedisError, OSError, msgspec.MsgspecError) as error:
            self._tell_lost(str(error))
        finally:
            self.listens = False
            await drop(connection)

    def _tell_lost(self, why: str) -> None:
        if why != self._lost:
            logger.info(
                "the bell of the store was lost: %s", why, extra={"action": "store.unheard"}
            )
        self._lost = why

    async def _hear(self, connection: AbstractConnection) -> None:
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
                self.listens, self._lost = True, ""
                self._ring_all()
