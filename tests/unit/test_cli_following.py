"""Following work: events are hints, records are the truth, and nothing is shown twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from actors.commands import following
from actors.commands.failures import TimedOutError, UnreachableError
from actors.commands.following import Follower, Update
from actors.commands.output import Output
from actors.commands.watch import follow_all
from runtime.watching import OPENED, RESET, Event


class Told:
    """Stands for the HTTP client: records as they are set, events as they are told."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.queue: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self.reads = 0

    async def get(self, path: str) -> Any:
        self.reads += 1
        return self.records[path.rpartition("/")[2]]

    async def events(self, rooms: Sequence[str]) -> AsyncGenerator[Event]:
        self.rooms = list(rooms)
        while True:
            event = await self.queue.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def tell(self, name: str, **data: Any) -> None:
        self.queue.put_nowait(Event(name, "i:1", "2026-11-21T08:00:01.000Z", data))

    def set(self, status: str, *jobs: dict[str, Any], **fields: Any) -> None:
        ids = [job["id"] for job in jobs]
        issue = {"id": "issue_1", "title": "T", "status": status, "jobIds": ids, **fields}
        self.records["issue_1"] = issue | ({"jobId": ids[-1]} if ids else {})
        self.records |= {job["id"]: job for job in jobs}


def job(id: str, status: str = "running", **fields: Any) -> dict[str, Any]:
    return {"id": id, "agentType": "code", "status": status, "logs": [], **fields}


def log(second: int, message: str) -> dict[str, str]:
    return {"time": f"2026-11-21T08:00:{second:02d}.000Z", "message": message}


@pytest.fixture
def told() -> Told:
    return Told()


async def test_a_progress_event_is_shown_without_a_read(told: Told) -> None:
    """Each log line would cost two requests."""
    told.set("processing", job("job_1", costUsd=0.01))
    progress = {"jobId": "job_1", "progress": 40, "currentStep": "Testing", "costUsd": 0.03}
    async with aclosing(Follower(told, "issue_1").updates()) as updates:  # type: ignore[arg-type]
        await anext(updates)
        before = told.reads
        told.tell("agent:progress", message="ran tests", **progress)
        update = await anext(updates)
    assert told.reads == before
    assert (update.picture.percent, update.picture.step) == (40, "Testing")
    assert update.picture.cost_usd == pytest.approx(0.03)
    assert [line.message for line in update.lines] == ["ran tests"]
    assert told.rooms == ["issue:issue_1"]


async def test_a_line_from_the_record_and_from_its_event_is_one(told: Told) -> None:
    """Every log line would be shown twice."""
    told.set("processing", job("job_1", logs=[log(1, "ran tests")]))
    lines = []
    async with aclosing(Follower(told, "issue_1").updates()) as updates:  # type: ignore[arg-type]
        lines += (await anext(updates)).lines
        told.tell(
            "agent:progress", jobId="job_1", progress=1, message="ran tests",
            timestamp="2026-11-21T08:00:01.003Z",
        )  # fmt: skip
        lines += (await anext(updates)).lines
        told.set("processing", job("job_1", logs=[log(1, "ran tests"), log(9, "ran tests")]))
        told.tell("job:waiting")
        lines += (await anext(updates)).lines
    assert [line.time for line in lines] == [
        "2026-11-21T08:00:01.000Z",
        "2026-11-21T08:00:09.000Z",
    ]


async def test_jobs_that_were_over_at_once_are_told_too(told: Told) -> None:
    """Of a short job nothing would be seen, and its cost would be missing."""
    done = job("job_1", "completed", costUsd=0.02, tokens=10, logs=[log(1, "first")])
    told.set("processing", done, job("job_2", costUsd=0.01, tokens=5, logs=[log(2, "second")]))
    async with aclosing(Follower(told, "issue_1").updates()) as updates:  # type: ignore[arg-type]
        update = await anext(updates)
    assert [line.message for line in update.lines] == ["first", "second"]
    assert update.picture.cost_usd == pytest.approx(0.03)
    assert (update.picture.tokens, update.picture.job_id) == (15, "job_2")


async def test_a_missed_event_costs_a_poll_and_no_more(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch would sit still for ever although the work is done."""
    monkeypatch.setattr(following, "POLL_S", 0.01)
    told.set("processing", job("job_1"))
    seen: list[Update] = []
    async for update in Follower(told, "issue_1").updates():  # type: ignore[arg-type]
        seen.append(update)
        told.set("completed", job("job_1", "completed"))
    assert seen[-1].picture.outcome == "completed"


async def test_the_records_are_read_again_once_the_stream_stands(told: Told) -> None:
    """What happened between the first look and the stream would wait for the poll."""
    told.set("processing", job("job_1"))
    async with aclosing(Follower(told, "issue_1").updates()) as updates:  # type: ignore[arg-type]
        await anext(updates)
        told.set("failed", job("job_1", "failed"), reason="work_failed")
        told.tell(OPENED)
        assert (await anext(updates)).picture.outcome == "failed"


async def test_a_review_that_was_just_decided_is_no_place_to_stop(told: Told) -> None:
    """`approve` and then `watch` would tell the user to approve again."""
    told.set("review", job("job_1", "completed"), reviewId="review_1")
    told.records["review_1"] = {"status": "approved"}
    async with aclosing(Follower(told, "issue_1").updates()) as updates:  # type: ignore[arg-type]
        assert (await anext(updates)).picture.outcome is None
        told.records["review_1"] = {"status": "pending"}
        told.tell("review:requested")
        assert (await anext(updates)).picture.outcome == "review"


async def test_a_server_that_is_gone_ends_the_watch(told: Told) -> None:
    """The watch would poll a server that does not answer, or hide why it stopped."""
    told.set("processing", job("job_1"))
    told.queue.put_nowait(UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        async for _ in Follower(told, "issue_1").updates():  # type: ignore[arg-type]
            pass


async def test_a_bounded_watch_ends_in_time(told: Told) -> None:
    """`--timeout` would be of no effect."""
    told.set("processing", job("job_1"))
    with pytest.raises(TimedOutError, match="is still processing"):
        async for _ in Follower(told, "issue_1", 0.02).updates():  # type: ignore[arg-type]
            pass


async def test_a_program_that_watches_everything_is_told_of_a_reset(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would go on showing what the store has lost."""
    for name in (OPENED, "job:created", RESET, "job:completed"):
        told.tell(name)
    told.queue.put_nowait(UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        await follow_all(Output(as_json=True), told)  # type: ignore[arg-type]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["job:created", "reset", "job:completed"]
    assert lines[1] == {"event": "reset", "cursor": "i:1", "data": {}}


async def test_a_job_without_an_issue_is_followed_alone(told: Told) -> None:
    """A job of one's own agent could not be watched."""
    told.records["job_9"] = job("job_9", "completed", progress=100)
    [update] = [u async for u in Follower(told, "job_9").updates()]  # type: ignore[arg-type]
    assert (update.picture.outcome, update.picture.percent) == ("completed", 100)
