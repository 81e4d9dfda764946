"""One connection to a redis-server, shared by all calls of a process.

Calls go out as they come and are answered in that order, so what is on its way
together is one group commit of the server.  The connection is made by the first
call and made anew by the next one after it broke.  `greet` runs on every new
connection before anything else is sent on it, whoever makes it.

Nothing is buffered or repeated here: once sent, a call that loses its
connection, or is not answered in time, has an unknown outcome.  An answer may be
long in coming as long as it comes.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, SupportsIndex
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from runtime.errors import SettingsError, StoreUnavailableError
from runtime.store.redis_server import ServerRefusedError

CONNECT_S: Final = 0.5
"""How long a server may take to accept a connection."""
GREET_S: Final = 1.0
"""How long it may take to answer what is asked on a new one."""
ANSWER_S: Final = 1.0
"""Nothing of an answer for so long: the server hangs, the connection is given up."""
BYTES_PER_S: Final = 20 << 20
"""What a call carries is given this much more time."""

_DATABASE: Final = re.compile(r"/?|/[0-9]{1,9}/?")
"""The path of a URL that names a database, or none."""
_NOT_ALLOWED: Final = (AuthenticationError, NoPermissionError)

Greet = Callable[[AbstractConnection], Awaitable[None]]


class Server:
    """Where a redis-server is and how it is spoken to, from its URL."""

    def __init__(self, url: str) -> None:
        try:
            self._options: dict[str, Any] = dict(parse_url(url))
            _check_database(url, self._options)
            self._kind = self._options.pop("connection_class", Connection)
            self._options |= {
                "protocol": 2,
                "decode_responses": False,
                "socket_timeout": None,
                "socket_connect_timeout": CONNECT_S,
            }
            if self._kind is Connection:
                self._options["socket_keepalive"] = True
            self.where = self._describe()
            self.connection(_never)
        except (ValueError, TypeError, RedisError) as error:
            raise SettingsError("a Redis URL can't be used", _without_url(error, url)) from None

    def _describe(self) -> str:
        """For people: never with the password."""
        options = self._options
        place = (
            options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        )
        return f"redis-server at {place}, database {options.get('db', 0)}"

    def connection(self, greet: Greet) -> AbstractConnection:
        """A connection, not made yet, that greets the server by itself."""

        async def on_connect(connection: AbstractConnection) -> None:
            await connection.on_connect()
            await greet(connection)

        made: AbstractConnection = self._kind(**self._options, redis_connect_func=on_connect)
        return made

    async def connect(self, greet: Greet) -> AbstractConnection:
        """A connection that has been greeted.

        Raises:
            StoreUnavailableError: it can't be had; nothing of a call was sent.
            ServerRefusedError: it is none that the store may be kept on.
        """
        connection = self.connection(greet)
        try:
            async with asyncio.timeout(CONNECT_S + GREET_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            await drop(connection)
            if any(isinstance(one, _NOT_ALLOWED) for one in (error, error.__cause__)):
                raise ServerRefusedError(f"it refuses this user or password: {error}") from error
            raise StoreUnavailableError(self.where, str(error) or "no answer") from error
        except BaseException:
            await drop(connection)
            raise
        return connection


def _check_database(url: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for a database that is no number: the parser takes it for 0."""
    parts = urlsplit(url)
    names_none = parts.scheme != "unix" and not _DATABASE.fullmatch(unquote(parts.path))
    if names_none or options.get("db", 0) < 0:
        raise ValueError("the database is a number from 0, as in redis://HOST:PORT/0")


async def _never(connection: AbstractConnection) -> None:
    raise AssertionError("this connection is never made")


async def drop(connection: AbstractConnection) -> None:
    """Close without waiting for the server."""
    await connection.disconnect(nowait=True)


def _without_url(error: Exception, url: str) -> str:
    """An error's text, unless it repeats the URL and with it a password."""
    text = str(error)
    return "it can't be read" if url in text or "@" in text else text


class Link:
    def __init__(self, server: Server, greet: Greet) -> None:
        self._server = server
        self._greet = greet
        self._channel: _Channel | None = None
        self._connecting: asyncio.Task[_Channel] | None = None
        self._closed = False

    async def call(self, *command: str | bytes | int) -> Any:
        """The server's answer.

        Raises:
            ResponseError: the server's error.
            StoreUnavailableError: no answer; whether the call was done is unknown.
        """
        channel = self._channel
        if channel is None or channel.ended:
            channel = await self.connected()
        return await channel.call(command)

    def drop(self) -> None:
        """Give the connection up; the next call makes another."""
        if self._channel is not None:
            self._channel.end("the connection was given up")

    async def connected(self) -> _Channel:
        """The connection, made if need be; one at a time for everybody."""
        if self._closed:
            raise StoreUnavailableError("closed")
        if self._channel is not None and not self._channel.ended:
            return self._channel
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        try:
            return await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            if self._closed:
                raise StoreUnavailableError("closed") from None
            raise

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._channel is not None:
            self._channel.end("closed")
            await self._channel.gone()

    async def _connect(self) -> _Channel:
        if self._channel is not None:
            await self._channel.gone()
        self._channel = _Channel(await self._server.connect(self._greet), self._server.where)
        return self._channel


class _Channel:
    """A connection with calls in flight."""

    def __init__(self, connection: AbstractConnection, where: str) -> None:
        self.ended = False
        self._connection = connection
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._outbox: list[bytes] = []
        self._news = asyncio.Event()
        self._heard_s = 0.0
        """When the server last sent anything, by the loop's clock."""
        self._listen()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    async def call(self, command: tuple[str | bytes | int, ...]) -> Any:
        packed = self._connection.pack_command(*command)
        timeout_s = ANSWER_S + sum(map(len, packed)) / BYTES_PER_S
        answer: asyncio.Future[Any] = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._look, answer)
        try:
            if self.ended:
                raise StoreUnavailableError(self._where, "the connection broke")
            self._waiting.append(answer)
            self._outbox += packed
            self._news.set()
            return await answer
        finally:
            timer.cancel()

    def _listen(self) -> None:
        """Notice all that is received: redis-py tells of whole answers only."""
        reader = self._connection._reader
        assert reader is not None
        feed = reader.feed_data

        def heard(data: Iterable[SupportsIndex]) -> None:
            self._heard_s = self._loop.time()
            feed(data)

        reader.feed_data = heard  # type: ignore[method-assign]

    def _look(self, answer: asyncio.Future[Any]) -> None:
        """An answer is late: it is waited for while the server sends it, or those before it."""
        if answer.done():
            return
        left_s = self._heard_s + ANSWER_S - self._loop.time()
        if left_s > 0:
            self._loop.call_later(left_s, self._look, answer)
        else:
            self.end("no answer in time")

    async def _write(self) -> None:
        """Send what has gathered; a caller that gives up does not tear a command."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                packed, self._outbox = self._outbox, []
                if not self._connection.is_connected:
                    return self.end("the connection broke")
                await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as error:
            self.end(str(error))

    async def _read(self) -> None:
        try:
            while True:
                self._answered(await self._response())
        except (RedisError, OSError, IndexError) as error:
            self.end(str(error))

    async def _response(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error

    def _answered(self, answer: Any) -> None:
        future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(answer, ResponseError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def end(self, why: str) -> None:
        """All calls in flight have an unknown outcome; no other is taken."""
        if self.ended:
            return
        self.ended = True
        for task in self._tasks:
            task.cancel()
        for future in self._waiting:
            if not future.done():
                future.set_exception(StoreUnavailableError(self._where, why))
        self._waiting.clear()
        self._outbox.clear()

    async def gone(self) -> None:
        """Wait until nothing of it is left."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await drop(self._connection)
