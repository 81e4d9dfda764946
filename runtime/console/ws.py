"""WS /api/ws: the organization's events over a WebSocket.

    client  {"subscribe": ["issue:…", …], "cursor": "…"}   rooms more; where to begin, once
            {"unsubscribe": ["issue:…"]}                    rooms less
            {"ack": "…"}                                    everything up to here has been taken in
    server  {"event", "cursor", "organizationId", "timestamp", "data"}          an event
            {"event": "subscribed" | "refused" | "alive" | "reset" | "slow", "cursor", "data"}

A socket has one place and a set of rooms.  `subscribed` names both: from there
on nothing of these rooms is missed, and each event is told once.  A client that
comes back sends its rooms and the last cursor it was told, of whatever message.

A client is `UNACKED_MAX` events ahead of its last ack at most.  Then the socket
waits, and whoever is silent for `SLOW_S` is told `slow` and closed: proxies may
take in any amount, so only the client itself can say what it has taken in.  An
ack is taken in as it comes; whatever else is asked waits for its answer.

Who may connect is `auth`'s, which rooms there are `rooms`'; a key that is
revoked closes its sockets within five seconds.  A guard sees to that and to who
does not even take the bytes, since whoever sends waits for such a client.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Final, NoReturn, cast

from fastapi import APIRouter
from pydantic import Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from runtime.console.caller import Console
from runtime.console.door import MESSAGE_BYTES_MAX, TOO_LARGE, frame_writer, line_cutter
from runtime.console.feed import Reader
from runtime.console.rooms import ROOMS_MAX, is_room
from runtime.console.told import PLACE_LENGTH_MAX, Told, read_place, told_text
from runtime.errors import StoreUnavailableError
from runtime.keys import Principal
from runtime.wire import WireModel

logger = logging.getLogger(__name__)

RECHECK_S: Final = 2.0
"""How often a socket asks whether its key still holds."""
UNACKED_MAX: Final = 1_000
"""Events told since the last ack."""
UNACKED_BYTES_MAX: Final = 1 << 20
"""The same in bytes; one event more than this is told alone."""
SLOW_S: Final = 10.0
"""How long a socket waits for a client that has its fill."""
CLOSE_S: Final = 1.0
"""How long the word that it is closed may take."""
ASKED_MAX: Final = 16
"""Messages of a client that wait for their answer; no more are read meanwhile."""

REVOKED: Final = 1008
TRY_AGAIN: Final = 1013
TOO_SLOW: Final = 4408
"""Close codes; their reasons are the words of docs/api.md."""

router = APIRouter()


class Asked(WireModel):
    """What a client sends; each part may be left out."""

    subscribe: tuple[str, ...] | None = None
    unsubscribe: tuple[str, ...] | None = None
    cursor: str | None = Field(None, max_length=PLACE_LENGTH_MAX)
    ack: str | None = Field(None, max_length=PLACE_LENGTH_MAX)

    @property
    def is_answered(self) -> bool:
        """An ack alone is not."""
        asks = any(one is not None for one in (self.subscribe, self.unsubscribe, self.cursor))
        return asks or self.ack is None


@router.websocket("/api/ws")
async def follow(socket: WebSocket) -> None:
    console = cast(Console, socket.app.state.console)
    principal = cast(Principal, socket.scope["principal"])
    with suppress(WebSocketDisconnect):  # it is gone
        await socket.accept()
        if console.feed.readers >= console.settings.streams_max:
            await socket.close(TRY_AGAIN, "too_many_streams")
            return
        try:
            async with console.feed.reader(principal.organization, ()) as reader:
                try:
                    await Conversation(socket, console, principal, reader).hold()
                except ClosingError as closing:
                    await _close(socket, *closing.args)
        except StoreUnavailableError:
            await _close(socket, TRY_AGAIN, "store_unavailable")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Close, or cut off who takes nothing in; it counts as long as it is there.

    Another server than ours closes it its own way, and in its own time.
    """
    try:
        async with asyncio.timeout(CLOSE_S):
            await socket.close(code, reason)
    except TimeoutError:
        cut = line_cutter(socket.scope)
        if cut is not None:
            cut()
    while socket.client_state is WebSocketState.CONNECTED:
        await socket.receive()


class ClosingError(Exception):
    """The socket is to be closed. Args: close code, reason."""


class Conversation:
    """One socket: what its client asks and what it is told, in one order."""

    def __init__(
        self, socket: WebSocket, console: Console, principal: Principal, reader: Reader
    ) -> None:
        self._socket = socket
        self._console = console
        self._principal = principal
        self._reader = reader
        self._rooms: frozenset[str] = frozenset()
        self._begun = False
        """It has its rooms, so its place is settled."""
        self._asked: asyncio.Queue[Asked | None] = asyncio.Queue(ASKED_MAX)
        """What waits for its answer; None: something that can't be read."""
        self._write = frame_writer(socket.scope)
        self._unacked: deque[tuple[int, int]] = deque()
        """(cursor, bytes) of what was told since the last ack."""
        self._unacked_bytes = 0
        self._full_since_s: float | None = None
        """When it was found to have its fill, until it is told an event again."""
        self._heard = asyncio.Event()
        self._place = reader.place
        """Of what was told last."""
        loop = asyncio.get_running_loop()
        self._now_s = loop.time
        self._spoke_s = loop.time()
        self._sends_since_s: float | None = None
        if self._write is not None:
            reader.tell = self._tell_now

    async def hold(self) -> None:
        """Until the client goes, or is closed."""
        works = (self._listen(), self._tell_all(), self._guard())
        tasks = [asyncio.create_task(work, name="ws") for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # What the client says

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            asked = _read(message.get("text"), message.get("bytes"))
            if asked is not None and asked.ack is not None:
                self._ack(asked.ack)
            if asked is None or asked.is_answered:
                await self._asked.put(asked)
                self._heard.set()
                self._reader.nudge()

    def _ack(self, place: str) -> None:
        _, cursor = read_place(place) or ("", 0)
        while self._unacked and self._unacked[0][0] <= cursor:
            self._unacked_bytes -= self._unacked.popleft()[1]
        self._heard.set()

    async def _answer(self, asked: Asked | None) -> None:
        if asked is None:
            await self._refuse("invalid_request", "Send JSON as docs/api.md says.")
            return
        await self._check_key()
        more, less = asked.subscribe or (), asked.unsubscribe or ()
        rooms = (self._rooms | {*more}) - {*less}
        if any(not is_room(self._principal.organization, room) for room in more):
            await self._refuse("unknown_room", "There is no such room.")
        elif len(rooms) > ROOMS_MAX:
            await self._refuse("too_many_rooms", f"A socket has at most {ROOMS_MAX} rooms.")
        elif asked.cursor is not None and self._begun:
            await self._refuse("cursor_too_late", "A socket begins once; open another one.")
        else:
            await self._subscribe(rooms, read_place(asked.cursor))

    async def _subscribe(self, rooms: frozenset[str], place: tuple[str, int] | None) -> None:
        if place is not None:
            self._reader.begin(place)
        self._begun, self._rooms = True, rooms
        self._reader.follow(rooms)
        await self._say("subscribed", {"rooms": sorted(rooms)})

    async def _refuse(self, code: str, detail: str) -> None:
        await self._say("refused", {"code": code, "detail": detail})

    # What it is told

    async def _tell_all(self) -> None:
        while True:
            while not self._asked.empty():
                await self._answer(self._asked.get_nowait())
            try:
                found = await self._reader.read(RECHECK_S)
            except StoreUnavailableError:
                await asyncio.sleep(RECHECK_S)
                continue
            if found.reset:
                self._unacked.clear()
                self._unacked_bytes = 0
                await self._say("reset", {})
            for told in found.told:
                if not await self._tell(told):
                    break
            if self._now_s() - self._spoke_s >= self._console.settings.keep_alive_s:
                await self._say("alive", {})

    def _tell_now(self, told: Told) -> bool:
        """Tell it without waiting for anything, while `_tell_all` waits for events."""
        assert self._write is not None
        size = len(told.text)
        if not self._asked.empty() or self._has_its_fill(size) or not self._write(told.frame):
            return False
        self._count(told, size)
        self._place, self._spoke_s = told.place, self._now_s()
        return True

    async def _tell(self, told: Told) -> bool:
        """False: something is asked first; what comes after the place is read again."""
        size = len(told.text)
        if self._has_its_fill(size) and not await self._wait_for_acks(size):
            self._reader.begin(read_place(self._place) or ("", 0))
            return False
        self._count(told, size)
        await self._send(told.text)
        self._place = told.place
        return True

    def _count(self, told: Told, size: int) -> None:
        self._full_since_s = None
        self._unacked.append((told.cursor, size))
        self._unacked_bytes += size

    def _has_its_fill(self, size: int) -> bool:
        if len(self._unacked) >= UNACKED_MAX:
            return True
        return bool(self._unacked) and self._unacked_bytes + size > UNACKED_BYTES_MAX

    async def _wait_for_acks(self, size: int) -> bool:
        """Whether there is room; False: something is asked, and acks may be behind it."""
        since_s = self._full_since_s = self._full_since_s or self._now_s()
        while self._has_its_fill(size):
            wait_s = min(RECHECK_S, since_s + SLOW_S - self._now_s())
            if wait_s <= 0:
                detail = f"No ack for {SLOW_S:g} s; come back with the last cursor."
                await self._send(told_text("slow", self._place, {"detail": detail}))
                self._send_away("ack")
            if not self._asked.empty():
                return False
            self._heard.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._heard.wait()
        return True

    async def _say(self, event: str, data: dict[str, object]) -> None:
        """Something of the socket's own, with the place that holds as it is said."""
        self._place = self._reader.place
        await self._send(told_text(event, self._place, data))

    async def _send(self, text: str) -> None:
        self._sends_since_s = self._now_s()
        await self._socket.send({"type": "websocket.send", "text": text})
        self._spoke_s, self._sends_since_s = self._sends_since_s, None

    async def _guard(self) -> NoReturn:
        """Close what is to end whatever it is doing; a timeout for each send would cost more."""
        while True:
            await asyncio.sleep(RECHECK_S)
            since_s = self._sends_since_s
            if since_s is not None and self._now_s() - since_s > SLOW_S:
                self._send_away("bytes")
            with suppress(StoreUnavailableError):
                await self._check_key()

    def _send_away(self, what: str) -> NoReturn:
        logger.info(
            "a client was too slow and is sent away",
            extra={"action": "socket.slow", "key": self._principal.key_id, "waited": what},
        )
        raise ClosingError(TOO_SLOW, "too_slow")

    async def _check_key(self) -> None:
        if not await self._console.keys.is_active(self._principal):
            raise ClosingError(REVOKED, "key_revoked")


def _read(text: str | None, data: bytes | None) -> Asked | None:
    """What a message asks; None: it is not as docs/api.md says.

    Raises:
        ClosingError: it is too large; our own server does not let it come so far.
    """
    sent = text.encode() if text is not None else data or b""
    if len(sent) > MESSAGE_BYTES_MAX:
        raise ClosingError(*TOO_LARGE)
    try:
        return None if text is None else Asked.model_validate_json(sent)
    except ValidationError:
        return None
