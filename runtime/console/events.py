"""GET /api/events: the organization's events as a stream (server-sent events).

    event: agent:progress
    id: 3f2a…:4711                     incarnation:cursor, for Last-Event-ID
    data: {"event", "cursor", "organizationId", "timestamp", "data"}

With `Last-Event-ID` the stream goes on right after that event; without, at the
head.  `event: reset` says that the place is void: read again what is shown,
then go on.  A stream ends by itself after `AGE_MAX_S` and within five seconds
of its key's revocation; the client comes back with its last id.  So does one
that has taken nothing in for `SLOW_S`: it is told `event: slow` if it still
takes that.  A guard sees to all three, since whoever sends to a client that
does not read waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from runtime.console.caller import Caller, Viewer
from runtime.console.door import line_cutter
from runtime.console.feed import Reader
from runtime.console.problems import invalid, unavailable
from runtime.console.rooms import MONITORING, ROOMS_MAX, is_room
from runtime.console.told import PLACE_LENGTH_MAX, Told, read_place
from runtime.errors import StoreUnavailableError
from runtime.wire import WireModel

logger = logging.getLogger(__name__)

AGE_MAX_S: Final = 3_600.0
RECHECK_S: Final = 2.0
"""How often a stream asks whether its key still holds."""
RETRY_MS: Final = 2_000
"""What a client is asked to wait before it comes back."""
SLOW_S: Final = 10.0
"""How long a piece waits for a client to take in those before it."""
CLOSE_S: Final = 0.5
"""How long the last word may take."""
PIECE_BYTES: Final = 1 << 16
"""Events are sent together up to here; one that is larger is sent whole."""
_ONE_LINE: Final = str.maketrans("\r\n", "  ")

router = APIRouter(prefix="/api/events", tags=["events"])


class EventsQuery(WireModel):
    rooms: str | None = Field(None, max_length=16_000, examples=["issue:issue_01JD,scheduler"])
    """Comma-separated; absent or with `monitoring`: everything of the organization."""
    cursor: str | None = Field(None, max_length=PLACE_LENGTH_MAX)
    """The same as Last-Event-ID, which comes first."""


LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=PLACE_LENGTH_MAX)]


@router.get("", summary="Follow the organization's events")
async def follow(
    caller: Viewer, query: Annotated[EventsQuery, Query()], last_event_id: LastEventId = None
) -> StreamingResponse:
    rooms = _rooms(caller.principal.organization, query.rooms)
    if caller.console.feed.readers >= caller.console.settings.streams_max:
        raise unavailable("too_many_streams", "Too many event streams are open here.")
    return EventsResponse(caller, rooms, read_place(last_event_id or query.cursor))


class EventsResponse(StreamingResponse):
    """A stream that keeps the hub running from before its first byte to its last."""

    media_type = "text/event-stream"

    def __init__(
        self, caller: Caller, rooms: frozenset[str], place: tuple[str, int] | None
    ) -> None:
        super().__init__(self._content(), headers={"X-Accel-Buffering": "no"})
        self._caller = caller
        self._reading = caller.console.feed.reader(caller.principal.organization, rooms, place)
        self._has_begun = False
        self._sends_since_s: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def timed(message: Message) -> None:
            self._sends_since_s = asyncio.get_running_loop().time()
            await send(message)
            self._has_begun, self._sends_since_s = True, None

        async with self._reading as self._reader:
            telling = asyncio.create_task(super().__call__(scope, receive, timed), name="events")
            guard = asyncio.create_task(self._guard(), name="events")
            try:
                await asyncio.wait((telling, guard), return_when=asyncio.FIRST_COMPLETED)
                is_over = telling.done()
            finally:
                telling.cancel()
                guard.cancel()
                await asyncio.gather(telling, guard, return_exceptions=True)
            if is_over:
                telling.result()
            elif not (self._has_begun and await _said(guard.result(), send)):
                await self._cut(scope, receive)

    async def _content(self) -> AsyncIterator[bytes]:
        async for block in _stream(self._caller, self._reader):
            yield block

    async def _guard(self) -> bytes:
        """Until the stream is to end; the last that its client is told."""
        console, principal = self._caller.console, self._caller.principal
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        while True:
            await asyncio.sleep(RECHECK_S)
            if self._sends_since_s is not None and now_s() - self._sends_since_s > SLOW_S:
                logger.info(
                    "a client was too slow and is sent away",
                    extra={"action": "socket.slow", "key": principal.key_id, "waited": "bytes"},
                )
                return _slow()
            with suppress(StoreUnavailableError):
                is_old = now_s() - began_s >= AGE_MAX_S
                if is_old or not await console.keys.is_active(principal):
                    return b""

    async def _cut(self, scope: Scope, receive: Receive) -> None:
        """Be rid of a client that takes nothing in; another server than ours does it its way."""
        cut = line_cutter(scope)
        if cut is not None:
            cut()
            await self.listen_for_disconnect(receive)


async def _said(last: bytes, send: Send) -> bool:
    """Whether the client took the end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await send({"type": "http.response.body", "body": last, "more_body": False})
            return True
    return False


def _rooms(organization: str, text: str | None) -> frozenset[str]:
    """The rooms wanted; without any it is everything."""
    rooms = frozenset(room.strip() for room in (text or "").split(",") if room.strip())
    if len(rooms) > ROOMS_MAX:
        raise invalid("query.rooms", "too_many_rooms", f"A stream has at most {ROOMS_MAX} rooms.")
    if any(not is_room(organization, room) for room in rooms):
        raise invalid("query.rooms", "unknown_room", "There is no such room.")
    return rooms or frozenset({MONITORING})


async def _stream(caller: Caller, reader: Reader) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    spoke_s = loop.time()
    yield f"retry: {RETRY_MS}\n".encode() + _id(reader.place)
    while True:
        try:
            found = await reader.read(RECHECK_S)
        except StoreUnavailableError:
            await asyncio.sleep(RECHECK_S)
            continue
        if found.reset:
            yield b"event: reset\ndata: {}\n" + _id(reader.place)
        elif found.told:
            for piece in _pieces(found.told):
                yield piece
        elif loop.time() - spoke_s >= caller.console.settings.keep_alive_s:
            yield b": keep-alive\n" + _id(reader.place)
        else:
            continue
        spoke_s = loop.time()


def _id(place: str) -> bytes:
    """Ends a block; one without data tells the client its place and nothing else."""
    return f"id: {place}\n\n".encode()


def _slow() -> bytes:
    """Without an id: what was told last holds."""
    detail = f"Nothing was taken in for {SLOW_S:g} s; come back with the last id."
    return f"event: slow\ndata: {json.dumps({'detail': detail})}\n\n".encode()


def _pieces(events: Sequence[Told]) -> Iterator[bytes]:
    """Whole events, no more at once than a slow line takes in time."""
    piece = bytearray()
    for told in events:
        piece += _event(told)
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _event(told: Told) -> bytes:
    # what is told has no line breaks; a name is whatever an agent's author has made it of
    name = told.entry.event.translate(_ONE_LINE)
    return f"event: {name}\ndata: {told.text}\n".encode() + _id(told.place)
