"""Watching: the events of an organization as they happen, over a WebSocket that comes back.

    async with aclosing(watch("http://127.0.0.1:8000", key, ["issue:issue_01JD"])) as events:
        async for event in events:
            print(event.name, event.data)

No event is missed and none is given twice, whatever happens to the server and
to the connection, until the server itself says `RESET`: then its place in the
feed is void, and what was learned from events is to be read again.  A consumer
that is slow slows the server; one that rests for longer is closed there, and
goes on where it was.

Source: docs/api.md, "Events".
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

from runtime.backoff import Backoff
from runtime.errors import TroupeError

OPENED: Final = "opened"
"""From here on nothing is missed: read now what is shown. Again after each connection."""
RESET: Final = "reset"
"""The place was void: read again what is shown."""

ACK_EVERY: Final = 200
"""Events between two acks; the server goes 1,000 ahead."""
ACK_BYTES: Final = 1 << 18
"""The same in bytes; the server goes 1 MiB ahead."""
OPEN_S: Final = 10.0
"""How long one connection may take to stand."""
SILENCE_S: Final = 60.0
"""A connection without even a sign of life for so long is opened anew."""
EVENT_BYTES_MAX: Final = 1 << 24
BACKOFF: Final = Backoff(base_s=0.2, cap_s=3.0)
FINAL: Final = {
    1008: "The key holds no more.",
    1009: "The rooms do not fit into one message.",
}
"""Close codes, and what they say; every other one means: come back."""

_LOST: Final = (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, ProxyError)
_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_OWN: Final = frozenset({"alive", "slow"})


class WatchRefusedError(TroupeError):
    """The server does not let this be watched. Args: HTTP status or 0, code, detail."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code

    def __str__(self) -> str:
        return f"{self.args[2]} ({self.code})"


class WatchUnreachableError(TroupeError):
    """No connection stood within the patience that was given. Args: url, why."""

    def __str__(self) -> str:
        return f"{self.args[0]} does not answer ({self.args[1]})"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the feed, or `OPENED` or `RESET`."""

    name: str
    """`agent:progress`, `issue:review`, ..."""
    cursor: str
    """Its place; `watch(..., cursor=)` goes on right after it."""
    timestamp: str
    data: Mapping[str, Any]
    organization: str = ""
    """Whose it is; empty of `OPENED` and `RESET`."""


async def watch(
    url: str,
    key: str | None,
    rooms: Sequence[str],
    cursor: str | None = None,
    *,
    patience_s: float | None = None,
    direct: bool = False,
) -> AsyncGenerator[Event]:
    """The events of the rooms after `cursor` (default: from now on), for ever.

    Args:
        url: of the server, `http://` or `https://`.
        rooms: at most 50; `monitoring` is everything of the organization.
        patience_s: seconds to try for one connection; None: for ever.
        direct: never through a proxy of the environment.

    Raises:
        WatchRefusedError: the key does not hold, there is no such room, or too many.
        WatchUnreachableError: not one connection within `patience_s`.
    """
    loop = asyncio.get_running_loop()
    lost_at: float | None = None
    retry = 0
    while True:
        try:
            async with _connect(url, key, direct) as socket:
                await socket.send(_subscription(rooms, cursor))
                async for event in _events(socket):
                    cursor = event.cursor
                    lost_at, retry = None, 0
                    if event.organization or event.name not in _OWN:
                        yield event
        except InvalidURI as error:
            raise WatchRefusedError(0, "invalid_url", str(error)) from error
        except _LOST as error:
            _check(error)
            lost_at = lost_at or loop.time()
            if patience_s is not None and loop.time() - lost_at >= patience_s:
                raise WatchUnreachableError(url, str(error) or type(error).__name__) from error
        retry += 1
        await asyncio.sleep(BACKOFF.wait_s(retry, random.random))


def _connect(url: str, key: str | None, direct: bool) -> open_socket:
    address = url.rstrip("/").replace("http", "ws", 1) + "/api/ws"
    return open_socket(
        address,
        additional_headers={"Authorization": f"Bearer {key}"} if key else {},
        compression=None,  # small messages at once, not few bytes
        open_timeout=OPEN_S,
        close_timeout=1.0,
        max_size=EVENT_BYTES_MAX,
        proxy=None if direct else True,
    )


def _subscription(rooms: Sequence[str], cursor: str | None) -> str:
    asked: dict[str, Any] = {"subscribe": list(rooms)}
    return json.dumps(asked if cursor is None else {**asked, "cursor": cursor})


async def _events(socket: ClientConnection) -> AsyncGenerator[Event]:
    """What one connection tells; what was taken is acknowledged when more is asked for."""
    unacked = unacked_bytes = 0
    while True:
        async with asyncio.timeout(SILENCE_S):
            text = await socket.recv(decode=False)
        said = json.loads(text)
        name, organization = said["event"], said.get("organizationId", "")
        if not organization:  # the socket's own
            if name == "refused":
                raise WatchRefusedError(0, said["data"]["code"], said["data"]["detail"])
            name = OPENED if name == "subscribed" else name
        event = Event(name, said["cursor"], said.get("timestamp", ""), said["data"], organization)
        yield event
        unacked, unacked_bytes = unacked + 1, unacked_bytes + len(text)
        if unacked >= ACK_EVERY or unacked_bytes >= ACK_BYTES:
            unacked = unacked_bytes = 0
            await socket.send(json.dumps({"ack": event.cursor}))


def _check(error: Exception) -> None:
    """Raise if coming back would change nothing."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and (
            status not in _AGAIN
        ):
            raise WatchRefusedError(status, *_said(error.response.body)) from error
    if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code in FINAL:
        code = error.rcvd.code
        raise WatchRefusedError(0, error.rcvd.reason, FINAL[code]) from error


def _said(body: bytes | bytearray) -> tuple[str, str]:
    """Code and detail of the problem that an upgrade was answered with."""
    with suppress(ValueError, KeyError, TypeError):  # a proxy's own answer is none
        problem = json.loads(body)
        return str(problem["code"]), str(problem["detail"])
    return "refused", "The server refused the connection; is the key right?"
