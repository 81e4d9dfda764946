"""An event as clients are told it: encoded once, for all who are told it.

    {"event", "cursor", "organizationId", "timestamp", "data"}

`cursor` is `incarnation:number`, and so is every place in the feed that a
client is told or sends back.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from runtime.clock import iso
from runtime.console.door import text_frame
from runtime.console.rooms import event_keys
from runtime.store.contract import FeedEntry

PLACE_LENGTH_MAX: Final = 100

_PLACE = re.compile(r"([0-9A-Za-z_-]{1,64}):(0|[1-9][0-9]{0,15})")


class Told:
    """One event of the feed; its text is made when the first reader needs it."""

    __slots__ = ("_frame", "_text", "cursor", "entry", "keys", "place")

    def __init__(self, entry: FeedEntry, incarnation: str) -> None:
        self.entry = entry
        self.cursor = entry.cursor
        self.place = place_text(incarnation, entry.cursor)
        self.keys = event_keys(entry.organization, entry.rooms)
        self._text: str | None = None
        self._frame: bytes | None = None

    @property
    def text(self) -> str:
        """The JSON: ASCII on one line, since JSON has no raw line breaks."""
        if self._text is None:
            entry = self.entry
            self._text = told_text(
                entry.event,
                self.place,
                json.loads(entry.body),
                organizationId=entry.organization,
                timestamp=iso(entry.at_ms),
            )
        return self._text

    @property
    def frame(self) -> bytes:
        """The text as a frame of a WebSocket."""
        if self._frame is None:
            self._frame = text_frame(self.text)
        return self._frame


def told_text(event: str, place: str, data: Any, **more: Any) -> str:
    """The JSON of something told: an event, or what a stream says of itself."""
    return json.dumps({"event": event, "cursor": place, **more, "data": data})


def place_text(incarnation: str, cursor: int) -> str:
    """A place as clients know it."""
    return f"{incarnation}:{cursor}"


def read_place(text: str | None) -> tuple[str, int] | None:
    """(incarnation, cursor); None for none, and what can't be read is a void place."""
    if text is None:
        return None
    match = _PLACE.fullmatch(text)
    return (match[1], int(match[2])) if match else ("", 0)
