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
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from runtime.clock import iso
from runtime.console.caller import Caller, Viewer
from runtime.console.feed import FeedHub
from runtime.console.problems import invalid, unavailable
from runtime.errors import StoreUnavailableError
from runtime.message import WireModel
from runtime.store.contract import FeedEntry

AGE_MAX_S: Final = 3_600.0
RECHECK_S: Final = 2.0
"""How often a stream asks whether its key still holds."""
RETRY_MS: Final = 2_000
"""What a client is asked to wait before it comes back."""
ROOMS_MAX: Final = 50
EVERYTHING: Final = "monitoring"
"""The room of all events of the organization."""

_PLACE = re.compile(r"([0-9A-Za-z_-]{1,64}):(0|[1-9][0-9]{0,15})")

router = APIRouter(prefix="/api/events", tags=["events"])


class EventsQuery(WireModel):
    rooms: str | None = Field(None, max_length=8_000, examples=["issue:issue_01JD,scheduler"])
    """Comma-separated; absent or with `monitoring`: everything of the organization."""
    cursor: str | None = Field(None, max_length=100)
    """The same as Last-Event-ID, which comes first."""


LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)]


@router.get("", summary="Follow the organization's events")
async def follow(
    caller: Viewer, query: Annotated[EventsQuery, Query()], last_event_id: LastEventId = None
) -> StreamingResponse:
    hub, settings = caller.console.feed, caller.console.settings
    rooms, place = _rooms(query.rooms), _place(last_event_id or query.cursor)
    if hub.readers >= settings.streams_max:
        raise unavailable("too_many_streams", "Too many event streams are open here.")
    return EventsResponse(hub, _stream(caller, rooms, place))


class EventsResponse(StreamingResponse):
    """A stream that keeps the hub running from before its first byte to its last."""

    media_type = "text/event-stream"

    def __init__(self, hub: FeedHub, content: AsyncIterator[bytes]) -> None:
        super().__init__(content, headers={"X-Accel-Buffering": "no"})
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._hub.reader():
            await super().__call__(scope, receive, send)


def _rooms(text: str | None) -> frozenset[str]:
    """The rooms wanted; empty for everything."""
    rooms = frozenset(room.strip() for room in (text or "").split(",") if room.strip())
    if len(rooms) > ROOMS_MAX:
        raise invalid("query.rooms", "too_many_rooms", f"A stream has at most {ROOMS_MAX} rooms.")
    return frozenset() if EVERYTHING in rooms else rooms


def _place(last_event_id: str | None) -> tuple[str, int] | None:
    """(incarnation, cursor); a place that can't be read is a void one."""
    if last_event_id is None:
        return None
    match = _PLACE.fullmatch(last_event_id)
    return (match[1], int(match[2])) if match else ("", 0)


async def _stream(
    caller: Caller, rooms: frozenset[str], place: tuple[str, int] | None
) -> AsyncIterator[bytes]:
    hub, loop = caller.console.feed, asyncio.get_running_loop()
    incarnation, after = place or (hub.incarnation, hub.head)
    end_s = loop.time() + AGE_MAX_S
    spoke_s = checked_s = loop.time()
    yield f"retry: {RETRY_MS}\n".encode() + _id(incarnation, after)
    while loop.time() < end_s:
        try:
            feed = await hub.read(after, caller.principal.organization, incarnation, RECHECK_S)
            if loop.time() - checked_s >= RECHECK_S:
                if not await caller.console.keys.is_active(caller.principal):
                    return
                checked_s = loop.time()
        except StoreUnavailableError:
            await asyncio.sleep(RECHECK_S)
            continue
        after, wanted = feed.cursor, [e for e in feed.entries if not rooms or rooms & {*e.rooms}]
        if feed.reset:
            incarnation = hub.incarnation
            yield b"event: reset\ndata: {}\n" + _id(incarnation, after)
        elif wanted:
            yield b"".join(_event(entry, incarnation) for entry in wanted)
        elif loop.time() - spoke_s >= caller.console.settings.keep_alive_s:
            yield b": keep-alive\n" + _id(incarnation, after)
        else:
            continue
        spoke_s = loop.time()


def _id(incarnation: str, cursor: int) -> bytes:
    """Ends a block; one without data tells the client its place and nothing else."""
    return f"id: {incarnation}:{cursor}\n\n".encode()


def _event(entry: FeedEntry, incarnation: str) -> bytes:
    data = {
        "event": entry.event,
        "cursor": f"{incarnation}:{entry.cursor}",
        "organizationId": entry.organization,
        "timestamp": iso(entry.at_ms),
        "data": json.loads(entry.body),
    }
    # JSON has no raw line breaks, and an event's name is never a caller's text
    text = f"event: {entry.event}\ndata: {json.dumps(data)}\n"
    return text.encode() + _id(incarnation, entry.cursor)
