"""Calls of the Redis store's scripts: greeted connections, and what an error means.

A script the server does not know is sent to it and run again; a server that is
not the one the incarnation was drawn on is greeted again first.  Both have
written nothing.  Every other repetition is the caller's: an unknown outcome
stays unknown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from runtime.clock import Clock
from runtime.errors import SettingsError, StoreError, StoreFullError, StoreUnavailableError
from runtime.store import redis_scripts as scripts
from runtime.store.redis_link import Link, Server
from runtime.store.redis_scripts import Script
from runtime.store.redis_server import (
    Ask,
    Facts,
    Rewrite,
    ServerRefusedError,
    check_rings,
    facts_of,
)

logger = logging.getLogger(__name__)

LAYOUT: Final = "1"
"""Of keys and values; a server that holds another is refused."""
TELL_FULL_S: Final = 60.0
"""As long as there is no room, the log tells it so often."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REFUSALS: Final = (
    "MISCONF", "NOREPLICAS", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "UNKILLABLE",
)  # fmt: skip
"""Beginnings of errors by which a server refuses a call before it starts."""


class Greeting(msgspec.Struct, array_like=True, frozen=True):
    """What redis_greet.lua answers."""

    incarnation: str
    restarted: bool
    whole: bool
    """The append-only file was rewritten after the last restart."""
    messages: int
    events: int
    pending: int
    owners: tuple[str, ...]
    """Whose lease is live."""
    kept_since_ms: int
    """What the latest `prune` was for; 0: there was none."""
    forgotten_rows: int


_decode_greeting = msgspec.msgpack.Decoder(Greeting).decode
_decode_drawn = msgspec.msgpack.Decoder(tuple[str, bool]).decode


class Calls:
    def __init__(
        self,
        url: str,
        prefix: str,
        clock: Clock | None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise SettingsError("a prefix of Redis keys has letters, digits, `_`, `.`, `-`", prefix)
        self.server = Server(url)
        self.prefix = prefix
        self._clock = clock
        self._random_bytes = random_bytes
        self._link = Link(self.server, self.greet)
        self._rewrite = Rewrite()
        self._knows_one = False
        """Whether this client has seen an incarnation: one that is drawn then is no first one."""
        self._refused = ""
        """Why the server was last refused, told once."""
        self._tell_full_s = 0.0
        """When it is next told that there is no room, by the loop's clock."""

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            ServerRefusedError: the server can't keep the store; it says why.
            StoreUnavailableError: it does not answer.
        """
        await self._link.connected()

    async def close(self) -> None:
        await self._link.close()

    async def run(self, script: Script, *arguments: str | bytes | int) -> Any:
        """What a script answers.

        Raises:
            StoreUnavailableError: it was not run, or nobody knows.
            StoreFullError: there is no room; it was not run.
            StoreError: a defect.
        """
        try:
            try:
                return await self._run(script, arguments)
            except ResponseError as error:
                if not str(error).startswith("TROUPE_CHANGED"):
                    raise
            self._link.drop()
            return await self._run(script, arguments)
        except ResponseError as error:
            raise self._meaning(error, script) from error
        except ServerRefusedError as error:
            raise StoreUnavailableError(self.server.where, *error.args) from error

    async def command(self, *words: str | bytes | int) -> Any:
        """A plain command; its errors are raised as redis-py has them."""
        return await self._link.call(*words)

    async def facts(self) -> tuple[Facts, Greeting]:
        """What the server says of itself now, and how much it holds."""
        try:
            facts = await facts_of(self._link.call)
            return facts, await self._greeting(self._link.call)
        except ServerRefusedError as error:
            raise StoreUnavailableError(self.server.where, *error.args) from error

    async def greet(self, connection: AbstractConnection) -> None:
        """Check a new connection's server and make its incarnation known."""

        async def ask(*words: str | bytes | int) -> Any:
            await connection.send_command(*words)
            return await connection.read_response()

        try:
            (await facts_of(ask)).check()
            if not self._knows_one:  # later a ring may wait, as all that writes (CLIENT PAUSE)
                await check_rings(ask, self.prefix)
            await self._greeting(ask)
        except ServerRefusedError as error:
            self._tell_refused(str(error))
            raise
        self._refused, self._knows_one = "", True

    def _tell_refused(self, why: str) -> None:
        if why != self._refused:
            logger.error("%s: %s", self.server.where, why, extra={"action": "store.refused"})
        self._refused = why

    async def _greeting(self, ask: Ask) -> Greeting:
        try:
            found = _decode_greeting(await self._ask(ask, scripts.GREET, LAYOUT))
            if found.incarnation:
                return found
            whole = not found.restarted or await self._rewrite.done(ask)
            fresh = self._random_bytes(8).hex()
            drawn = _decode_drawn(await self._ask(ask, scripts.DRAW, fresh, LAYOUT, int(whole)))
        except ResponseError as error:
            raise _refused(error) from error
        if drawn[1] and (found.messages or self._knows_one):
            logger.warning(
                "%s is not the server it was: a new incarnation",
                self.server.where,
                extra={"action": "store.incarnation"},
            )
        return msgspec.structs.replace(found, incarnation=drawn[0], whole=whole)

    async def _run(self, script: Script, arguments: tuple[str | bytes | int, ...]) -> Any:
        try:
            return await self._link.call(
                "EVALSHA", script.digest, 0, self.prefix, self._now(), *arguments
            )
        except NoScriptError:
            return await self._ask(self._link.call, script, *arguments)

    async def _ask(self, ask: Ask, script: Script, *arguments: str | bytes | int) -> Any:
        return await ask("EVAL", script.source, 0, self.prefix, self._now(), *arguments)

    def _now(self) -> int | str:
        """What scripts take for the time: nothing is the server's own clock."""
        return "" if self._clock is None else self._clock.now_ms()

    def _meaning(self, error: ResponseError, script: Script) -> StoreError:
        text = str(error)
        if isinstance(error, OutOfMemoryError):
            return self._full("its memory is used up (maxmemory)")
        if text.startswith("TROUPE_FULL"):
            return self._full(text.removeprefix("TROUPE_FULL "))
        if text.startswith("MISCONF") and "No space left" in text:
            return self._full("its disk is full")
        if isinstance(error, ReadOnlyError) or text.startswith("TROUPE_CHANGED"):
            self._link.drop()
            return StoreUnavailableError(self.server.where, text)
        if text.startswith(_REFUSALS):
            return StoreUnavailableError(self.server.where, text)
        logger.error("%s failed: %s", script.name, text, extra={"action": "store.defect"})
        return StoreError(f"redis_{script.name}.lua", text)

    def _full(self, why: str) -> StoreFullError:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._tell_full_s:
            logger.error("%s: %s", self.server.where, why, extra={"action": "store.full"})
            self._tell_full_s = now_s + TELL_FULL_S
        return StoreFullError(self.server.where, why)


def _refused(error: RedisError) -> StoreError:
    text = str(error)
    if text.startswith("TROUPE_LAYOUT"):
        held = text.removeprefix("TROUPE_LAYOUT ")
        return ServerRefusedError(f"it holds layout {held}, this is layout {LAYOUT}")
    if text.startswith(_REFUSALS):
        return StoreUnavailableError(text)
    return ServerRefusedError(text)
