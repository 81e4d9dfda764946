"""/api/jobs: the organization's jobs, their steps and work products, and commands to them.

Reads come from the job's documents; a command goes to the scheduler, after the
job was found to be the caller's.  Content is served as a download that no
browser will run, because an agent made it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from runtime.clock import iso
from runtime.console.caller import Caller, Operator, Viewer
from runtime.console.command import COMMAND, NoBody, command, done
from runtime.console.once import Idempotent
from runtime.console.paging import Page, PageQuery, list_page, number_page, page
from runtime.console.problems import ProblemError, not_found
from runtime.job import AgentJob, Artifact, JobStatus
from runtime.store.contract import BATCH_MAX, Document, Step
from runtime.turn import to_json
from runtime.wire import WireModel

STEP_BYTES_MAX: Final = 16 << 10
"""A longer request or result of a step is told by its size only."""
BYTES: Final = "application/octet-stream"
KINDS: Final = ("text/plain", "application/json", BYTES)
"""As which the content of a work product is served: no browser runs these."""

router = APIRouter(prefix="/api/jobs", tags=["jobs"])
JobKey = Annotated[str, Path(max_length=200, examples=["job_01JD"])]
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
_Filter = Annotated[str | None, Field(max_length=240)]


class JobsQuery(PageQuery):
    status: JobStatus | None = None
    agent_type: _Filter = None
    agent: _Filter = None
    issue: _Filter = None


class StepView(WireModel):
    """One step of a job."""

    number: int
    key: str
    kind: Literal["pure", "workspace", "external"]
    attempts: int
    """How often its call was begun."""
    done: bool
    at: str
    request: Any = None
    request_bytes: int
    result: Any = None
    result_bytes: int = 0


@router.get("", response_model=Page[AgentJob], summary="List jobs, newest first")
async def list_jobs(caller: Viewer, query: Annotated[JobsQuery, Query()]) -> Response:
    documents, cursor = await list_page(caller, "job", query, query.filters())
    return page((_told(document) for document in documents), cursor)


@router.get("/{job_id}", response_model=AgentJob, summary="One job")
async def get_job(job_id: JobKey, caller: Viewer) -> Response:
    document = await caller.own("job", job_id)
    return Response(_told(document), media_type="application/json")


def _told(document: Document) -> bytes:
    """The record; the error of an attempt that a later one has made good is its session's."""
    if b'"error"' not in document.body:
        return document.body
    record = json.loads(document.body)  # not read further: one that can't be is shown as it is
    if record.get("status") not in (JobStatus.COMPLETED, JobStatus.CANCELLED):
        return document.body
    record.pop("error", None)
    return to_json(record)


@router.get("/{job_id}/journal", response_model=Page[StepView], summary="A job's steps, in order")
async def get_steps(
    job_id: JobKey, caller: Viewer, query: Annotated[PageQuery, Query()]
) -> Response:
    await caller.own("job", job_id)
    steps = await caller.console.store.steps(job_id)

    async def read(after: int, limit: int) -> list[tuple[int, Step]]:
        return list(enumerate(steps, 1))[after : after + limit]

    rows, cursor = await number_page(  # what is shown of a step is bounded
        caller, f"steps {job_id}", query, read, lambda row: row[0], lambda row: 0
    )
    return page((_step(number, step).to_json() for number, step in rows), cursor)


def _step(number: int, step: Step) -> StepView:
    return StepView(
        number=number,
        key=step.key,
        kind=step.kind,
        attempts=step.attempts,
        done=step.result is not None,
        at=iso(step.at_ms),
        request=_short(step.intent),
        request_bytes=len(step.intent),
        result=_short(step.result),
        result_bytes=len(step.result or b""),
    )


def _short(body: bytes | None) -> Any:
    return json.loads(body) if body and len(body) <= STEP_BYTES_MAX else None


@router.get("/{job_id}/artifacts", response_model=Page[Artifact], summary="A job's work products")
async def list_artifacts(
    job_id: JobKey, caller: Viewer, query: Annotated[PageQuery, Query()]
) -> Response:
    await caller.own("job", job_id)
    documents, cursor = await list_page(
        caller, "artifact", query, {"job": job_id}, descending=False, listing=f"artifacts {job_id}"
    )
    return page((document.body for document in documents), cursor)


@router.get(
    "/{job_id}/artifacts/{sha256}",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in KINDS}, "description": "The bytes"}},
    summary="The content of a work product",
)
async def get_artifact(job_id: JobKey, sha256: Digest, caller: Viewer) -> Response:
    artifact = next((a for a in await _artifacts(caller, job_id) if a.sha256 == sha256), None)
    if artifact is None:
        raise not_found()
    return await _content(caller, artifact, _safe(artifact.media_type))


@router.get(
    "/{job_id}/diff",
    response_class=Response,
    responses={200: {"content": {"text/x-diff": {}}, "description": "The patch"}},
    summary="A job's change as a patch",
)
async def get_diff(job_id: JobKey, caller: Viewer) -> Response:
    changes = [a for a in await _artifacts(caller, job_id) if a.type == "code_change"]
    if not changes:
        raise ProblemError(404, "no_diff", "The job has no change yet.")
    return await _content(caller, changes[-1], "text/x-diff; charset=utf-8")


async def _artifacts(caller: Caller, job_id: str) -> list[Artifact]:
    """A job's work products; those of its result last, so that the last change is the result."""
    job = AgentJob.from_json((await caller.own("job", job_id)).body)
    documents = await caller.client.list("artifact", {"job": job_id}, limit=BATCH_MAX)
    kept = [Artifact.from_json(document.body) for document in documents]
    return kept + list(job.result.artifacts if job.result else ())


async def _content(caller: Caller, artifact: Artifact, media_type: str) -> Response:
    content = await caller.client.get_content(artifact.sha256)
    if content is None:
        raise not_found()
    disposition = f"attachment; filename*=utf-8''{quote(artifact.name, safe='')}"
    return Response(
        content, headers={"Content-Disposition": disposition, "Content-Type": media_type}
    )


def _safe(media_type: str) -> str:
    """One of KINDS: an agent's HTML is text here."""
    if media_type.startswith("text/"):
        return "text/plain; charset=utf-8"
    return media_type if media_type in KINDS else BYTES


async def _ask(caller: Caller, once: Idempotent, job_id: str, verb: str) -> Response:
    await caller.own("job", job_id)
    answer = await command(caller, once, f"job.{verb}", {"jobId": job_id})
    return done(answer, jobId=job_id)


@router.post("/{job_id}/pause", summary="Pause a job between two steps", **COMMAND)
async def pause_job(
    job_id: JobKey, caller: Operator, once: Idempotent, body: NoBody = None
) -> Response:
    return await _ask(caller, once, job_id, "pause")


@router.post("/{job_id}/resume", summary="Let a paused job go on", **COMMAND)
async def resume_job(
    job_id: JobKey, caller: Operator, once: Idempotent, body: NoBody = None
) -> Response:
    return await _ask(caller, once, job_id, "resume")


@router.post("/{job_id}/cancel", summary="Cancel a job and its children", **COMMAND)
async def cancel_job(
    job_id: JobKey, caller: Operator, once: Idempotent, body: NoBody = None
) -> Response:
    return await _ask(caller, once, job_id, "cancel")


@router.post("/{job_id}/retry", summary="Try a failed job again", **COMMAND)
async def retry_job(
    job_id: JobKey, caller: Operator, once: Idempotent, body: NoBody = None
) -> Response:
    return await _ask(caller, once, job_id, "retry")
