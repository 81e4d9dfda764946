"""GET /api/events: the organization's events as a stream (server-sent events).

    event: agent:progress
    id: 3f2a…:4711                     incarnation:cursor, for Last-Event-ID
    data: {"event", "cursor", "organizationId", "timestamp", "data"}

With `Last-Event-ID` the stream goes on right after that event; without, at the
head.  `event: reset` says that the place is void: read again what is shown,
then go on.  A stream ends by itself after `AGE_MAX_S` and within five seconds
of its key's revocation; the client comes back with its last id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from runtime.console.caller import Caller, Viewer
from runtime.console.feed import Reader
from runtime.console.problems import invalid, unavailable
from runtime.console.rooms import MONITORING, ROOMS_MAX, is_room
from runtime.console.told import PLACE_LENGTH_MAX, Told, read_place
from runtime.errors import StoreUnavailableError
from runtime.wire import WireModel

AGE_MAX_S: Final = 3_600.0
RECHECK_S: Final = 2.0
"""How often a stream asks whether its key still holds."""
RETRY_MS: Final = 2_000
"""What a client is asked to wait before it comes back."""

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
        super().__init__(self._content(caller), headers={"X-Accel-Buffering": "no"})
        self._reading = caller.console.feed.reader(caller.principal.organization, rooms, place)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._reading as self._reader:
            await super().__call__(scope, receive, send)

    async def _content(self, caller: Caller) -> AsyncIterator[bytes]:
        async for block in _stream(caller, self._reader):
            yield block


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
    end_s = loop.time() + AGE_MAX_S
    spoke_s = checked_s = loop.time()
    yield f"retry: {RETRY_MS}\n".encode() + _id(reader.place)
    while loop.time() < end_s:
        try:
            if loop.time() - checked_s >= RECHECK_S:
                if not await caller.console.keys.is_active(caller.principal):
                    return
                checked_s = loop.time()
            # last: what was read is told, whatever the store does
            found = await reader.read(RECHECK_S)
        except StoreUnavailableError:
            await asyncio.sleep(RECHECK_S)
            continue
        if found.reset:
            yield b"event: reset\ndata: {}\n" + _id(reader.place)
        elif found.told:
            yield b"".join(_event(told) for told in found.told)
        elif loop.time() - spoke_s >= caller.console.settings.keep_alive_s:
            yield b": keep-alive\n" + _id(reader.place)
        else:
            continue
        spoke_s = loop.time()


def _id(place: str) -> bytes:
    """Ends a block; one without data tells the client its place and nothing else."""
    return f"id: {place}\n\n".encode()


def _event(told: Told) -> bytes:
    # an event's name is never a caller's text, and what is told has no line breaks
    return f"event: {told.entry.event}\ndata: {told.text}\n".encode() + _id(told.place)
