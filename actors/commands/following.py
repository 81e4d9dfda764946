"""Following one issue, or one job, to the place where it stops.

The feed is a hint and the record is the truth: each event that may have changed
a record makes it read again, and a slow poll reads it anyway, so that a missed
event costs seconds and nothing else.  A picture only ever shows what was read
or what an event of a later moment said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from actors.commands.failures import TimedOutError
from actors.commands.http import Api
from actors.commands.words import parse_time
from runtime.watching import Event

POLL_S: Final = 5.0
"""The records are read again after this much silence."""
QUEUED_MAX: Final = 1_000
"""Events between the stream and the view; a slow terminal slows the stream."""
SAME_LINE: Final = timedelta(seconds=1)
"""The same message within this is the same line."""
QUESTION: Final = "question"
"""The reason of a job that has asked a person something."""

Outcome = Literal["review", "person", "completed", "failed", "cancelled"]
"""Where a followed thing stopped; `review` and `person` mean that somebody must decide."""
FINAL: Final[Mapping[str, Outcome]] = {
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""Statuses that stay."""


@dataclass(frozen=True)
class Line:
    """A log line of the work."""

    time: str
    message: str


@dataclass(frozen=True)
class Picture:
    """What is known of the followed thing at one moment."""

    id: str
    title: str
    status: str
    reason: str | None = None
    job_id: str | None = None
    agent_type: str | None = None
    percent: int = 0
    step: str | None = None
    cost_usd: float = 0.0
    tokens: int = 0
    review_id: str | None = None
    decided: bool = False
    """The review is decided, although the record does not say so yet."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The issue's document, or the job's."""
    job: Mapping[str, Any] = field(default_factory=dict)
    """The document of `job_id`."""

    @property
    def outcome(self) -> Outcome | None:
        """Where it has stopped; None while it goes on."""
        if self.status == "review":
            waits: Outcome = "review" if self.review_id else "person"
            return None if self.decided else waits
        if self.reason == QUESTION:
            return "person"
        return FINAL.get(self.status)


@dataclass(frozen=True)
class Update:
    """A new picture, and the log lines since the last one."""

    picture: Picture
    lines: tuple[Line, ...] = ()


class Follower:
    """Follows `id` (an issue's or a job's); iterate `updates` again to go on after a stop."""

    def __init__(self, api: Api, id: str, timeout_s: float | None = None) -> None:
        self._api = api
        self._id = id
        self._timeout_s = timeout_s
        self._jobs: dict[str, Mapping[str, Any]] = {}
        """The issue's jobs, as last read, in their order."""
        self._seen: dict[str, datetime] = {}
        """Log lines that were given, with the time of the latest."""

    async def updates(self) -> AsyncGenerator[Update]:
        """Each change until it stops; the last one has an outcome.

        Raises:
            TimedOutError: it has not stopped within `timeout_s`; it goes on.
            RefusedError: there is no such issue or job.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._timeout_s if self._timeout_s is not None else None
        events: asyncio.Queue[Event | BaseException] = asyncio.Queue(QUEUED_MAX)
        picture, lines = await self._read()
        reader = asyncio.create_task(self._listen(events))
        try:
            yield Update(picture, lines)
            while picture.outcome is None:
                left_s = POLL_S if give_up_at is None else min(POLL_S, give_up_at - loop.time())
                if left_s <= 0:
                    raise self._timed_out(picture)
                picture, lines = await self._next(events, picture, left_s)
                yield Update(picture, lines)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _next(
        self, events: asyncio.Queue[Event | BaseException], picture: Picture, wait_s: float
    ) -> tuple[Picture, tuple[Line, ...]]:
        event: Event | BaseException | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                event = await events.get()
        if isinstance(event, BaseException):
            raise event
        if event is not None and event.name == "agent:progress":
            return _progressed(picture, event), self._new(_said(event))
        return await self._read()

    async def _listen(self, events: asyncio.Queue[Event | BaseException]) -> None:
        room = f"job:{self._id}" if self._id.startswith("job_") else f"issue:{self._id}"
        try:
            async with aclosing(self._api.events([room])) as stream:
                async for event in stream:
                    await events.put(event)
        except Exception as error:  # it belongs to whoever waits for the next event
            await events.put(error)

    async def _read(self) -> tuple[Picture, tuple[Line, ...]]:
        if self._id.startswith("job_"):
            job = await self._api.get(f"/api/jobs/{self._id}")
            return _picture_of_job(job), self._new(_lines(job))
        issue = await self._api.get(f"/api/issues/{self._id}")
        await self._read_jobs(issue.get("jobIds", ()))
        picture = _picture_of_issue(issue, list(self._jobs.values()))
        if picture.outcome == "review":
            # The decision is in the review at once, and in the issue when its agent has seen it.
            review = await self._api.get(f"/api/reviews/{picture.review_id}")
            picture = replace(picture, decided=review["status"] != "pending")
        lines = [line for job in self._jobs.values() for line in _lines(job)]
        return picture, self._new(lines)

    async def _read_jobs(self, ids: Iterable[str]) -> None:
        """Read the jobs that may have changed; a short one can be over before it was seen."""
        for id in ids:
            if self._jobs.get(id, {}).get("status") not in FINAL:
                self._jobs[id] = await self._api.get(f"/api/jobs/{id}")

    def _new(self, lines: list[Line]) -> tuple[Line, ...]:
        return tuple(line for line in lines if self._is_new(line))

    def _is_new(self, line: Line) -> bool:
        """Whether this line was not given yet, from the record or from an event.

        The two carry times of their own, some milliseconds apart.
        """
        at = parse_time(line.time) or datetime.now(UTC)
        seen = self._seen.get(line.message)
        if seen is not None and at - seen < SAME_LINE:
            return False
        self._seen[line.message] = at
        return True

    def _timed_out(self, picture: Picture) -> TimedOutError:
        return TimedOutError(
            f"{self._id} is still {picture.status} after {self._timeout_s:g} s; it goes on.",
            f"Follow it again: troupe watch {self._id}",
        )


def _picture_of_issue(issue: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> Picture:
    job = jobs[-1] if jobs else {}
    waiting = issue["status"] != "review" and job.get("status") in ("waiting", "paused")
    return Picture(
        id=issue["id"],
        title=issue.get("title", ""),
        status=issue["status"],
        reason=issue.get("reason") or (job.get("reason") if waiting else None),
        job_id=issue.get("jobId"),
        agent_type=job.get("agentType"),
        percent=int(job.get("progress", 0)),
        step=job.get("currentStep"),
        cost_usd=sum(float(one.get("costUsd", 0)) for one in jobs),
        tokens=sum(int(one.get("tokens", 0)) for one in jobs),
        review_id=issue.get("reviewId"),
        record=issue,
        job=job,
    )


def _picture_of_job(job: Mapping[str, Any]) -> Picture:
    return Picture(
        id=job["id"],
        title=f"{job['agentType']} job",
        status=job["status"],
        reason=job.get("reason"),
        job_id=job["id"],
        agent_type=job["agentType"],
        percent=int(job.get("progress", 0)),
        step=job.get("currentStep"),
        cost_usd=float(job.get("costUsd", 0)),
        tokens=int(job.get("tokens", 0)),
        record=job,
        job=job,
    )


def _progressed(picture: Picture, event: Event) -> Picture:
    data = event.data
    if picture.job_id is not None and data.get("jobId") not in (None, picture.job_id):
        return picture  # of an earlier job of the issue
    return replace(
        picture,
        percent=max(picture.percent, int(data.get("progress", 0))),
        step=data.get("currentStep") or picture.step,
        cost_usd=picture.cost_usd + max(0.0, _spent(data) - _spent(picture.job)),
        job={**picture.job, "costUsd": max(_spent(data), _spent(picture.job))},
    )


def _spent(record: Mapping[str, Any]) -> float:
    return float(record.get("costUsd", 0))


def _lines(job: Mapping[str, Any]) -> list[Line]:
    return [Line(log["time"], log["message"]) for log in job.get("logs", ())]


def _said(event: Event) -> list[Line]:
    """The log line of a progress event; without one its message repeats the step."""
    message = str(event.data.get("message") or "")
    if message in ("", event.data.get("currentStep")):
        return []
    return [Line(str(event.data.get("timestamp") or event.timestamp), message)]
