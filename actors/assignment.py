"""What one agent of the department hands to another: an assignment, and the work that came of it.

Both travel as JSON in a job's payload and result, so they name content by hash
and never hold it.  `Work` is enough to rebuild the final tree on any node: the
repository at `base_commit`, plus the delta kept under `delta`.

    payload  {"issue": {...}, "repository": "...", "baseRef": "main", "notes": [], "work": null}
    result   {"outcome": "finished", "summary": "...", "data": {"work": {...}}}
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from actors.records import AgentIssue, AutomatedReview, GateReport, GateResult, Review, Sha256
from runtime.wire import WireModel

NOTES_MAX: Final = 50
"""Notes handed back with one bounce; the first ones are kept."""
NOTE_LENGTH_MAX: Final = 10_000

ObjectId = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]


class Note(WireModel):
    """What somebody wants changed."""

    source: Literal["gate", "reviewer", "person"]
    text: Annotated[str, Field(max_length=NOTE_LENGTH_MAX)]


class Work(WireModel):
    """A proposed change, complete by reference."""

    job_id: str
    """The code job that made it."""
    repository: str
    base_commit: ObjectId
    base_tree: ObjectId
    final_tree: ObjectId
    artifact_hash: Sha256
    """SHA-256 of the patch, and the hash it is stored under: what a person approves."""
    patch_bytes: int
    delta: Sha256 | None = None
    """Content that turns the base tree into the final one; absent when nothing is missing."""
    summary: str = ""
    confidence: str | None = None
    tests_run: tuple[str, ...] = ()
    residual_risk: str | None = None
    model: str | None = None
    """Who wrote it."""


class Assignment(WireModel):
    """What an agent is asked to do for an issue."""

    issue: AgentIssue
    repository: str
    base_ref: str | None = None
    """Absent: the repository's default branch. Of no effect when there is work to go on from."""
    notes: Annotated[tuple[Note, ...], Field(max_length=NOTES_MAX)] = ()
    """What was objected to in `work`, which is to be gone on from."""
    work: Work | None = None
    """The change to go on from, to review or to deliver."""
    review: Review | None = None
    """The approved review; of a delivery only."""


class ReviewOpinion(WireModel):
    """`data` of a review job's result."""

    gates: GateReport
    automated: AutomatedReview | None = None
    """Absent when a gate refused first, or when the repository wants no opinion."""


def notes_of(opinion: ReviewOpinion) -> tuple[Note, ...]:
    """What the next code job is told of a review that asked for changes."""
    notes = [
        Note(source="gate", text=_objection(result)[:NOTE_LENGTH_MAX])
        for result in opinion.gates.results
        if result.verdict == "failed"
    ]
    if opinion.automated is not None and opinion.automated.verdict == "request_changes":
        review = opinion.automated
        for finding in review.blocking:
            place = f"{finding.path or 'general'}:{finding.line}" if finding.line else finding.path
            text = f"{place}: {finding.why}" if place else finding.why
            notes.append(Note(source="reviewer", text=text[:NOTE_LENGTH_MAX]))
        notes += [
            Note(source="reviewer", text=f"missing test: {gap}"[:NOTE_LENGTH_MAX])
            for gap in review.test_gaps
        ]
        if not notes and review.summary:
            notes.append(Note(source="reviewer", text=review.summary[:NOTE_LENGTH_MAX]))
    return tuple(notes[:NOTES_MAX])


def _objection(result: GateResult) -> str:
    """What a gate says, with what its message leaves out."""
    lines = [f"{result.gate}: {result.message}"]
    for finding in result.findings:
        if finding.why not in result.message:
            lines.append(f"{finding.path}: {finding.why}" if finding.path else finding.why)
    return "\n".join(lines)
