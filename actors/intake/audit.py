"""GET /api/audit: the organization's audit trail as JSON Lines, in the order of time.

All of it is gathered before the first byte, so that a failure is an answer and
not a file that ends early; the last line says that the export is whole.  One
at a time in a process: it reads everything there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AfterValidator, AwareDatetime, Field
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from actors import audit
from actors.spool import Spool
from runtime.client import Client
from runtime.clock import iso
from runtime.console.caller import Admin
from runtime.console.problems import unavailable
from runtime.wire import WireModel

MEDIA_TYPE = "application/x-ndjson"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it is in no year from 1 to 9999") from None


_Moment = Annotated[AwareDatetime, AfterValidator(_utc)]


class AuditQuery(WireModel):
    since: _Moment | None = Field(None, examples=["2026-11-01T00:00:00Z"])
    """Only lines from then on."""


class AuditRoute:
    """The route and whether an export is under way."""

    def __init__(self) -> None:
        self._busy = False
        self.router = APIRouter(prefix="/api/audit", tags=["audit"])
        self.router.add_api_route(
            "",
            self.export,
            response_class=Response,
            responses={200: {"content": {MEDIA_TYPE: {}}, "description": "One JSON object a line"}},
            summary="Who decided what and when, and what came of it",
        )

    async def export(self, caller: Admin, query: Annotated[AuditQuery, Query()]) -> Response:
        if self._busy:
            raise unavailable("export_running", "Another export is under way; try again.")
        since = iso((query.since - _EPOCH) // timedelta(milliseconds=1)) if query.since else ""
        return _SpoolResponse(await self._gather(caller.client, since))

    async def _gather(self, client: Client, since: str) -> Spool:
        self._busy = True
        try:
            return await audit.gather(client, since)
        finally:
            self._busy = False


class _SpoolResponse(StreamingResponse):
    """Streams a spool and removes it, whatever becomes of the connection."""

    media_type = MEDIA_TYPE

    def __init__(self, spool: Spool) -> None:
        super().__init__(_text(spool))
        self._spool = spool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._spool.close()


async def _text(spool: Spool) -> AsyncIterator[str]:
    async for lines in spool.lines():
        yield "\n".join(lines) + "\n"
    yield audit.end(spool) + "\n"
