"""/api/reviews: what waits for a person's decision, and the decision.

A decision names the hash of what was looked at and is for nothing else.  It is
one commit: the review's document, as it was read, and `review.decided` to the
issue's agent.  So of two people who decide at once one decides, and an agent
that has put something newer up for review is never overruled.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Path, Query
from pydantic import Field
from starlette.responses import Response

from actors.records import (
    Review,
    ReviewClosedError,
    ReviewDecision,
    ReviewOutdatedError,
    ReviewStatus,
    decide,
)
from runtime.client import ConflictError, Write
from runtime.clock import iso
from runtime.console.caller import Caller, Operator, Viewer
from runtime.console.once import TRIES_MAX, Idempotent, Once, busy
from runtime.console.paging import Page, PageQuery, list_page, page
from runtime.console.problems import ProblemError

DIFF_BYTES_MAX: Final = 1 << 20
"""More of a patch is not shown here; all of it is the job's artifact."""

router = APIRouter(prefix="/api/reviews", tags=["reviews"])
ReviewKey = Annotated[str, Path(max_length=200, examples=["review_01JD4W9GZ3N5"])]
Decision = Annotated[
    ReviewDecision, Body(examples=[{"artifactHash": "3f" * 32, "comment": "Well done."}])
]


class ReviewsQuery(PageQuery):
    status: ReviewStatus | None = None
    issue: str | None = Field(None, max_length=200)


class ReviewView(Review):
    """A review with the change it is about."""

    diff: str | None = None
    diff_truncated: bool = False


@router.get("", response_model=Page[Review], summary="List reviews, newest first")
async def list_reviews(caller: Viewer, query: Annotated[ReviewsQuery, Query()]) -> Response:
    documents, cursor = await list_page(caller, "review", query, query.filters())
    return page((document.body for document in documents), cursor)


@router.get("/{review_id}", response_model=ReviewView, summary="One review, gates and diff")
async def get_review(review_id: ReviewKey, caller: Viewer) -> Response:
    review = Review.model_validate_json((await caller.own("review", review_id)).body)
    patch = await caller.client.get_content(review.patch_artifact or review.artifact_hash)
    view: dict[str, Any] = review.to_wire()
    if patch is not None:
        view["diff"] = patch[:DIFF_BYTES_MAX].decode("utf-8", "replace")
        view["diffTruncated"] = len(patch) > DIFF_BYTES_MAX
    body = ReviewView.model_validate(view).to_json()
    return Response(body, media_type="application/json")


@router.post("/{review_id}/approve", response_model=Review, summary="Deliver exactly this change")
async def approve(
    review_id: ReviewKey, body: Decision, caller: Operator, once: Idempotent
) -> Response:
    return await _decide(caller, once, review_id, body, "approved")


@router.post(
    "/{review_id}/reject", response_model=Review, summary="Refuse it; with a comment: do it again"
)
async def reject(
    review_id: ReviewKey, body: Decision, caller: Operator, once: Idempotent
) -> Response:
    return await _decide(caller, once, review_id, body, "rejected")


async def _decide(
    caller: Caller,
    once: Once,
    review_id: str,
    decision: ReviewDecision,
    status: Literal["approved", "rejected"],
) -> Response:
    if caller.principal.is_agent:
        raise ProblemError(403, "agents_cannot_decide", "Only a person decides a review.")
    for _ in range(TRIES_MAX):
        kept = await once.kept(caller)
        if kept is not None:
            return _respond(Review.model_validate(kept["answer"]))
        document = await caller.own("review", review_id)
        review = Review.model_validate_json(document.body)
        decided = _decided(caller, review, decision, status)
        if decided == review:
            return _respond(review)
        try:
            await _write(caller, once, decided, document.revision)
        except ConflictError:
            continue
        return _respond(decided)
    raise busy()


def _decided(
    caller: Caller,
    review: Review,
    decision: ReviewDecision,
    status: Literal["approved", "rejected"],
) -> Review:
    at = iso(caller.console.clock.now_ms())
    try:
        return decide(review, decision, status, by=caller.by, at=at)
    except ReviewOutdatedError:
        raise ProblemError(
            409, "artifact_changed", "This is not, or no longer, the change under review."
        ) from None
    except ReviewClosedError:
        raise ProblemError(409, "already_decided", f"The review is {review.status}.") from None


async def _write(caller: Caller, once: Once, decided: Review, revision: int) -> None:
    content = {
        "reviewId": decided.id,
        "approved": decided.status == "approved",
        "artifactHash": decided.artifact_hash,
        "comment": decided.comment,
        "by": decided.decided_by,
    }
    await caller.client.send(
        f"issue:{decided.issue_id}",
        content,
        "review.decided",
        message_id=f"decided:{decided.id}",
        writes=[
            Write("review", decided.id, decided.to_json(), decided.terms(), revision),
            *once.writes(caller, {"answer": decided.to_wire()}),
        ],
    )


def _respond(review: Review) -> Response:
    return Response(review.to_json(), media_type="application/json")
