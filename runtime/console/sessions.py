"""GET /api/agents/{id}/sessions: what an agent has executed, the newest first.

What a session is, and from what it is read, is `runtime.sessions`' business.
They are found among the agent's messages, which are numbered upwards; here they
are read downwards, a window at a time, and a page whose windows hold few runs
may be short, even empty, while there is a next one.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from runtime.console.agents import AgentKey, known
from runtime.console.caller import Viewer
from runtime.console.paging import SCAN_MAX, Cursors, Page, PageQuery, page
from runtime.sessions import Session, Status, session_of
from runtime.store.contract import BATCH_MAX, Store

WINDOW_MIN: Final = 256
"""Numbers of the first window; numbers are given to the messages of all agents."""
DENSE: Final = 32
"""A window with fewer messages is followed by a wider one."""

router = APIRouter(prefix="/api/agents", tags=["agents"])


class SessionsQuery(PageQuery):
    status: Status | None = None


@router.get(
    "/{agent_id}/sessions",
    response_model=Page[Session],
    summary="What an agent has executed, the newest first",
)
async def get_sessions(
    agent_id: AgentKey, caller: Viewer, query: Annotated[SessionsQuery, Query()]
) -> Response:
    where, store = await known(caller, agent_id), caller.console.store
    cursors = Cursors(caller, f"sessions {where}", query)
    before = cursors.read(query.cursor, int)
    if before is None:
        before = await last_seq(store, where) + 1
    found: list[Session] = []
    seen, width = 0, WINDOW_MIN
    while before > 1 and len(found) < query.limit and seen < SCAN_MAX:
        after = max(0, before - 1 - width)
        rows = await _window(store, where, after, before)
        seen, width = seen + len(rows), width * 8 if len(rows) < DENSE else width
        before = after + 1
        for seq, session in reversed(rows):
            if session is not None and query.status in (None, session.status):
                found.append(session)
                if len(found) == query.limit:
                    before = seq
                    break
    cursor = cursors.write(before) if before > 1 else None
    return page((session.to_json() for session in found), cursor)


async def _window(
    store: Store, where: str, after: int, before: int
) -> list[tuple[int, Session | None]]:
    """What the messages with `after` < seq < `before` stand for, in order.

    They may be long: a page of them is held at a time, never a window.
    """
    found: list[tuple[int, Session | None]] = []
    while after < before - 1:
        rows = await store.history(where, after, min(BATCH_MAX, before - after - 1))
        found += [(row.seq, session_of(row)) for row in rows if row.seq < before]
        after = rows[-1].seq if rows else before
    return found


async def last_seq(store: Store, where: str) -> int:
    """The number of an agent's newest message; 0 without one.

    The store reads upwards only, so it is looked for in steps that double, and
    then by halves: some thirty small reads.
    """
    low, high = 0, 1
    while rows := await store.history(where, high, 1):
        low = rows[0].seq
        high = 2 * low
    while low < high:
        middle = (low + high) // 2
        if rows := await store.history(where, middle, 1):
            low = rows[0].seq
        else:
            high = middle
    return low
