"""The promises of `runtime.job.Job`, kept by the runtime and by the job that tests use for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from runtime.agent import BaseAgent
from runtime.errors import NondeterminismError
from runtime.job import AgentJob, Job, JobResult, StepContext
from runtime.message import Message
from tests.jobs import MemoryJob, new_job
from tests.troupe import LocalTroupe
from tests.unit.test_jobs import until

Part = Callable[[Job], Awaitable[None]]
"""What one run does."""


class FailedRunError(Exception):
    """Ends a run, so that there is another one over what it has recorded."""


async def in_memory(first: Part, second: Part) -> None:
    durable = new_job("contract", {})
    with suppress(FailedRunError):
        await first(MemoryJob(durable))
    await second(MemoryJob(durable))


async def in_a_host(first: Part, second: Part) -> None:
    runs, wrong = [first, second], []

    class Contract(BaseAgent):
        kind = "contract"

        async def receive_message(self, message: Message) -> None:
            fields = {"organization_id": self.context.organization, "agent_type": "contract"}
            now_ms = self.context.now_ms()
            self.enqueue(AgentJob.new(id="job_1", now_ms=now_ms, payload={}, **fields))

        async def process_task(self, job: Job) -> JobResult:
            if runs:
                try:
                    await runs.pop(0)(job)
                except FailedRunError:
                    raise
                except BaseException as error:
                    wrong.append(error)
                    raise
            if runs:
                raise FailedRunError
            return JobResult(outcome="finished", summary="")

    troupe = await LocalTroupe({"contract": Contract}).start()
    troupe._random.random = lambda: 0.0  # a failed run is tried again at once
    client = troupe.client()
    await client.ask("contract:a", {}, "start")
    await until(client, "job_1", "completed")
    await troupe.stop()
    assert (runs, wrong) == ([], [])


@pytest.fixture(params=[in_memory, in_a_host], ids=lambda way: way.__name__)
def two_runs(request):
    return request.param


class Outside:
    """Counts the calls it gets; the first `failing` of them fail."""

    def __init__(self, answer: Any, failing: int = 0) -> None:
        self.calls: list[StepContext] = []
        self._answer = answer
        self._failing = failing

    async def call(self, context: StepContext) -> Any:
        self.calls.append(context)
        if len(self.calls) <= self._failing:
            raise FailedRunError
        return self._answer


async def test_a_recorded_result_is_answered_as_json_and_never_asked_for_again(two_runs) -> None:
    """A resumed job would pay again, or go on with another value than the run before had."""
    outside = Outside({"n": (1, 2)})

    async def run(job: Job) -> None:
        for _ in range(2):
            assert await job.step("a", outside.call, request={"x": 1}) == {"n": [1, 2]}

    await two_runs(run, run)
    assert len(outside.calls) == 1


async def test_a_recorded_step_is_not_answered_to_another_request(two_runs) -> None:
    """Changed code would go on with the answer to another question."""
    outside = Outside(1)

    async def first(job: Job) -> None:
        await job.step("a", outside.call, request={"x": 1})

    async def second(job: Job) -> None:
        with pytest.raises(NondeterminismError):
            await job.step("a", outside.call, request={"x": 2})

    await two_runs(first, second)


@pytest.mark.parametrize("kind", ["workspace", "external"])
async def test_a_call_without_an_answer_is_made_again_as_it_was_first_asked(two_runs, kind) -> None:
    """The other side could not tell that it is the same call, nor a workspace be put back."""
    outside = Outside("done", failing=1)

    async def first(job: Job) -> None:
        await job.step("a", outside.call, kind=kind, request={"tree": 1})

    async def second(job: Job) -> None:
        assert await job.step("a", outside.call, kind=kind, request={"tree": 2}) == "done"

    await two_runs(first, second)
    before, again = outside.calls
    assert (before.repeated, again.repeated) == (False, True)
    assert before.idempotency_key == again.idempotency_key
    assert before.request == again.request == {"tree": 1}


async def test_what_a_recorded_call_has_cost_is_counted_once(two_runs) -> None:
    """A budget would be used up by looking at what was paid for already."""

    async def run(job: Job) -> None:
        async def paid(context: StepContext) -> int:
            job.spend(0.5, 10)
            return 1

        await job.step("a", paid)
        assert (job.record.cost_usd, job.record.tokens) == (0.5, 10)

    await two_runs(run, run)


async def test_content_is_found_by_its_hash_in_a_later_run_too(two_runs) -> None:
    """A patch that was too long for the journal would be lost with the run that made it."""
    kept: list[str] = []

    async def first(job: Job) -> None:
        one, same = [await job.artifact("analysis", "a.txt", b"\x00\xff") for _ in range(2)]
        assert (one.sha256, one.size_bytes, one.job_id) == (same.sha256, 2, job.record.id)
        kept.append(one.sha256)
        await job.step("a", Outside(1).call)

    async def second(job: Job) -> None:
        assert await job.read_artifact(kept[0]) == b"\x00\xff"
        assert await job.read_artifact("0" * 64) is None

    await two_runs(first, second)


async def test_progress_goes_forward_only_and_a_missing_signal_is_none(two_runs) -> None:
    """A bar would jump back, or an agent take silence for an answer."""

    async def run(job: Job) -> None:
        await job.progress(50, "half")
        await job.progress(20, "again", "a line")
        assert (job.record.progress, job.record.current_step) == (50, "again")
        assert job.record.logs[-1].message == "a line"
        assert await job.signal("answer") is None

    await two_runs(run, run)


async def test_what_a_record_can_not_hold_is_refused_where_it_is_said(two_runs) -> None:
    """It would be written, and nobody could read the job again: no host, no scheduler."""

    async def run(job: Job) -> None:
        for wrong in ((60.5, "half"), (50, 5), (50, "half", 5)):
            with pytest.raises(ValueError, match="Expected"):
                await job.progress(*wrong)
        for cost_usd, tokens in ((float("nan"), 1), (0.5, 1.5)):
            with pytest.raises(ValueError, match="Expected"):
                job.spend(cost_usd, tokens)
        await job.progress(50.0, "half")
        assert repr(job.record.progress) == "50"
        assert (job.record.cost_usd, job.record.tokens) == (0.0, 0)

    await two_runs(run, run)
