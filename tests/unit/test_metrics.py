"""Figures and log lines: what is counted and what is written."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from runtime import logs
from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.console.metered import status_class
from runtime.ids import HOME, Ids
from runtime.job import AgentJob, Job, JobResult, JobStatus
from runtime.message import Message
from runtime.metrics import Meter, Sample
from runtime.observed import Observed
from runtime.scheduler import Scheduler
from tests.http import HttpTroupe
from tests.troupe import LocalTroupe, eventually


def told(samples: list[Sample]) -> dict[str, float]:
    """By the name that Prometheus would show."""
    return {
        sample.metric.name
        + sample.suffix
        + "".join(f"{{{name}={value}}}" for name, value in sample.labels): sample.value
        for sample in samples
    }


def test_a_meter_tells_each_thing_once_and_a_gauge_every_time() -> None:
    """Prometheus would count what happened once again at every reading."""
    meter = Meter()
    meter.count("troupe_runs_ended", label="completed")
    meter.count("troupe_runs_ended", 2, label="completed")
    meter.set("troupe_jobs", 7, "queued")
    for value in (0.0001, 0.0003, 9.0):
        meter.observe("troupe_round_seconds", value)
    first = told(meter.drain())
    assert first["troupe_runs_ended{outcome=completed}"] == 3
    assert first["troupe_jobs{state=queued}"] == 7
    assert first["troupe_round_seconds_bucket{le=0.0001}"] == 1
    assert first["troupe_round_seconds_bucket{le=0.00025}"] == 1
    assert first["troupe_round_seconds_bucket{le=0.0005}"] == 2
    assert first["troupe_round_seconds_bucket{le=1.0}"] == 2
    assert first["troupe_round_seconds_bucket{le=+Inf}"] == 3
    assert first["troupe_round_seconds_count"] == 3
    assert first["troupe_round_seconds_sum"] == pytest.approx(9.0004)
    assert told(meter.drain()) == {"troupe_jobs{state=queued}": 7}


@pytest.mark.parametrize("verb", ["count", "set", "observe"])
def test_a_figure_that_is_not_in_the_list_is_a_mistake(verb: str) -> None:
    """A typing mistake would make a second metric that no dashboard shows."""
    with pytest.raises(KeyError):
        getattr(Meter(), verb)("troupe_nothing", 1)


def worker(script: list[str]) -> type[BaseAgent]:
    class Worker(BaseAgent):
        kind = "worker"

        class State(AgentState):
            pass

        async def receive_message(self, message: Message) -> object:
            job = AgentJob.new(
                id="job_1", organization_id="acme", agent_type="worker", agent_id="worker:one",
                now_ms=self.context.now_ms(), max_attempts=message.content["attempts"],
            )  # fmt: skip
            self.enqueue(job)
            return None

        async def process_task(self, job: Job) -> JobResult:
            if script.pop(0) == "fail":
                raise RuntimeError("the outside is down")
            return JobResult(outcome="finished", summary="")

    return Worker


async def run(script: list[str], attempts: int) -> tuple[dict[str, float], list[logging.LogRecord]]:
    """One job through a scheduler with a meter; its figures, and its log lines."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    observing = logging.getLogger("runtime.observed")
    before = observing.level
    observing.addHandler(handler)
    observing.setLevel(logging.DEBUG)
    troupe = LocalTroupe({"worker": worker(script)})
    troupe._random.random = lambda: 0.0  # type: ignore[method-assign]
    try:
        await troupe.start()
        assert troupe.scheduler is not None
        meter = troupe.scheduler._meter
        await troupe.client().ask("worker:one", {"attempts": attempts}, "start")

        async def over() -> bool:
            document = await troupe.client().get("job", "job_1")
            return bool(document) and AgentJob.from_json(document.body).status.final

        await eventually(over)
        for verb in ("pause", "resume"):
            await troupe.client(HOME).ask("scheduler:main", {"by": "ann"}, f"scheduler.{verb}")

        async def in_the_log() -> bool:  # which it is once it was answered
            return any(record.action == "scheduler.resume" for record in records)  # type: ignore[attr-defined]

        await eventually(in_the_log)
        troupe.scheduler.measure()
        return told(meter.drain()), records
    finally:
        observing.removeHandler(handler)
        observing.setLevel(before)
        await troupe.stop()


async def test_the_scheduler_counts_runs_retries_and_ends() -> None:
    """An operator could not see how many runs there were, how long they took, how many failed."""
    figures, records = await run(["fail", "done"], attempts=4)
    assert figures["troupe_runs_started"] == 2
    assert figures["troupe_runs_ended{outcome=failed}"] == 1
    assert figures["troupe_runs_ended{outcome=completed}"] == 1
    assert figures["troupe_job_retries"] == 1
    assert figures["troupe_jobs_dead"] == 0
    assert figures["troupe_run_seconds_count{outcome=completed}"] == 1
    assert figures["troupe_round_seconds_count"] >= 2
    assert figures["troupe_selection_seconds_count"] == 2
    assert figures["troupe_jobs{state=running}"] == figures["troupe_queue_age_seconds"] == 0
    actions = [record.action for record in records]  # type: ignore[attr-defined]
    for action in ("job.queued", "job.retried", "job.ended", "scheduler.pause", "scheduler.resume"):
        assert action in actions
    assert actions.count("job.dispatched") == 2
    [retried] = [record for record in records if record.action == "job.retried"]  # type: ignore[attr-defined]
    assert (retried.levelname, retried.job, retried.agent) == ("WARNING", "job_1", "worker:one")  # type: ignore[attr-defined]


async def test_a_job_that_is_given_up_is_counted_and_an_error() -> None:
    """Nobody would be told of work that will not be done."""
    figures, records = await run(["fail"], attempts=1)
    assert figures["troupe_jobs_dead"] == 1
    [dead] = [record for record in records if record.action == "job.dead"]  # type: ignore[attr-defined]
    assert (dead.levelname, dead.status) == ("ERROR", JobStatus.FAILED.value)  # type: ignore[attr-defined]


async def test_the_age_of_the_queue_is_that_of_its_oldest_job() -> None:
    """A queue that stands still would look like one that moves."""
    from runtime.schedule.queue import JobQueue, Limits, place

    queue = JobQueue(Limits(total=1))
    assert queue.oldest_ms() is None
    for number, priority in enumerate(("low", "critical")):
        from runtime.job import Priority

        queue.add(place(f"job_{number}", "acme", 1_000 + number, Priority(priority)))
    assert queue.oldest_ms() == 1_000


def test_a_log_line_is_one_json_object_whatever_it_quotes() -> None:
    """A job's error could write lines and fields of its own into the log."""
    stream = io.StringIO()
    before = {name: logging.getLogger(name).__dict__.copy() for name in logs.PACKAGES}
    try:
        logs.configure("info", stream)
        evil = 'x\n{"level": "CRITICAL"}\x1b[2J"}'
        logger = logging.getLogger("runtime.test")
        logger.debug("not written")
        try:
            raise ValueError(evil)
        except ValueError:
            logger.exception("said %s", evil, extra={"action": "test.said", "level": "mine"})
    finally:
        for name, state in before.items():
            logging.getLogger(name).__dict__.update(state)
            logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]
    [line] = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said["message"] == f"said {evil}"
    assert (said["action"], said["level"], said["logger"]) == ("test.said", "ERROR", "runtime.test")
    assert "ValueError" in said["error"]
    assert "\x1b" not in line


@pytest.mark.parametrize(("text", "level"), [("info", "INFO"), (" Warn ", "WARNING")])
def test_a_level_is_read_however_it_is_written(text: str, level: str) -> None:
    """`LOG_LEVEL=warn`, as other programs take it, would be refused."""
    assert logs.level_of(text) == level
    with pytest.raises(ValueError, match="no log level"):
        logs.level_of("loud")


def test_a_scheduler_without_a_meter_of_its_own_keeps_one() -> None:
    """The queue would not run where nobody looks at its figures."""
    from runtime.store.memory import MemoryStore

    clock = SystemClock()
    scheduler = Scheduler(MemoryStore(clock), clock, Ids(clock), lambda: 0.5)
    assert isinstance(scheduler._dispatcher._units._observed, Observed)


async def test_a_replica_measures_each_request_once_by_the_class_of_its_answer() -> None:
    """Nobody would see that clients are refused, or wait."""
    api = HttpTroupe()
    meter = api.app.state.console.meter
    async with await api.client() as ann, api.with_token(None) as nobody:
        for client, path in ((ann, "/api/jobs"), (ann, "/api/jobs/job_0"), (nobody, "/api/jobs")):
            await client.get(path)
    found = told(meter.drain())
    requests = {name: value for name, value in found.items() if "requests" in name}
    assert requests == {
        "troupe_http_requests{status=2xx}": 1, "troupe_http_requests{status=4xx}": 2,
    }  # fmt: skip
    assert found["troupe_http_seconds_count{status=4xx}"] == 2
    token, _ = await api.key()
    async with api.stream("/api/events", token):
        [stream] = [s for s in meter.drain() if s.metric.name == "troupe_http_requests"]
    assert (stream.value, stream.labels) == (1, (("status", "2xx"),))  # though it goes on


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"type": "websocket.accept"}, "1xx"),
        ({"type": "websocket.close", "code": 1008}, "4xx"),
        ({"type": "websocket.http.response.start", "status": 503}, "5xx"),
    ],
)
def test_an_upgrade_counts_as_what_its_client_sees(message: dict[str, Any], status: str) -> None:
    """Sockets that are refused would look like sockets that are open."""
    assert status_class(message) == status
