"""The ledger of schedules over HTTP: each due time with its outcome, and what due times meant.

Read from the documents that the planner writes; nothing here changes one.  The
ledger of a schedule outlives it: 404 is for a schedule that never was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from runtime.console.agents import AgentKey
from runtime.console.caller import Caller, Viewer
from runtime.console.paging import Page, PageQuery, list_page, page
from runtime.console.problems import not_found
from runtime.ids import split
from runtime.schedule.record import (
    DEFAULT_NAME,
    OCCURRENCES,
    REVISIONS,
    Outcome,
    decode_occurrence,
    decode_revision,
)
from runtime.schedule.spec import NAME
from runtime.schedule.view import OccurrenceView, RevisionView, occurrence_view, revision_view
from runtime.store.contract import Document
from runtime.wire import WireModel

router = APIRouter(prefix="/api", tags=["schedules"])
_Occurrence = Annotated[str, Path(max_length=240, examples=["occ_1790000000000_01JD_1"])]


class NamedQuery(PageQuery):
    name: str = Field(DEFAULT_NAME, pattern=NAME)


class OccurrencesQuery(NamedQuery):
    outcome: Outcome | None = None


@router.get(
    "/agents/{agent_id}/schedule/occurrences",
    response_model=Page[OccurrenceView],
    summary="What became of each due time, newest first",
)
async def list_occurrences(
    agent_id: AgentKey, caller: Viewer, query: Annotated[OccurrencesQuery, Query()]
) -> Response:
    def wanted(one: Document) -> bool:
        return query.outcome is None or decode_occurrence(one.body).outcome == query.outcome

    def view(one: Document) -> OccurrenceView:
        return occurrence_view(decode_occurrence(one.body))

    keep = None if query.outcome is None else wanted
    return await _listed(caller, OCCURRENCES, "occurrences", agent_id, query, view, keep=keep)


@router.get(
    "/agents/{agent_id}/schedule/revisions",
    response_model=Page[RevisionView],
    summary="What its due times have meant, in order",
)
async def list_revisions(
    agent_id: AgentKey, caller: Viewer, query: Annotated[NamedQuery, Query()]
) -> Response:
    def view(one: Document) -> RevisionView:
        return revision_view(decode_revision(one.body))

    return await _listed(caller, REVISIONS, "revisions", agent_id, query, view, descending=False)


@router.get("/occurrences/{occurrence_id}", response_model=OccurrenceView, summary="One due time")
async def get_occurrence(occurrence_id: _Occurrence, caller: Viewer) -> Response:
    document = await caller.own(OCCURRENCES, occurrence_id)
    view = occurrence_view(decode_occurrence(document.body))
    return Response(view.to_json(), media_type="application/json")


async def _listed(
    caller: Caller,
    collection: str,
    what: str,
    agent_id: str,
    query: NamedQuery,
    view: Callable[[Document], WireModel],
    *,
    keep: Callable[[Document], bool] | None = None,
    descending: bool = True,
) -> Response:
    """A page of what one schedule's ledger has in a collection."""
    of = {"of": f"{split(caller.agent(agent_id))[1]}/{query.name}"}
    documents, cursor = await list_page(
        caller, collection, query, of,
        keep=keep, listing=f"{what} {agent_id}", descending=descending,
    )  # fmt: skip
    if not documents and not await caller.client.list(REVISIONS, of, limit=1):
        raise not_found()
    return page((view(one).to_json() for one in documents), cursor)
