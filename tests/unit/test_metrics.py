"""Figures and log lines: what is counted, what is written, and that the manual has it all."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime import logs
from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.console.metered import status_class
from runtime.ids import HOME, Ids
from runtime.job import AgentJob, Job, JobResult, JobStatus
from runtime.jobs.rounds import OUTCOMES
from runtime.message import Message
from runtime.metrics import METRICS, Meter, Sample
from runtime.observed import OPERATIONS, Observed
from runtime.plans import logged
from runtime.scheduler import Scheduler
from tests.http import HttpTroupe
from tests.troupe import LocalTroupe, eventually

ROOT = Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs" / "operations.md").read_text()
DASHBOARD = json.loads((ROOT / "docs" / "grafana.json").read_text())


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
    assert "troupe_jobs_dead" not in figures
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


# The table for people


def constants() -> list[str]:
    """Every string constant of the runtime and the department."""
    found = []
    for package in ("runtime", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def section(title: str) -> str:
    """What a heading of the manual has below it."""
    return MANUAL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(title: str) -> set[str]:
    """The names in the first column of a section's table."""
    cells = re.findall(r"^\| (`[^|]+`) \|", section(title), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_metric_is_in_the_table_with_its_kind_and_label_and_no_other() -> None:
    """An operator would look for a figure that is not there, or not know one that is."""
    rows = re.findall(r"^\| `ray_(\w+)` \| (\w+) \| (.*?) \|", section("Metrics"), re.MULTILINE)
    suffix = {"counter": "_total", "gauge": "", "histogram": "_bucket_total"}
    assert {(name, kind, label.strip("`")) for name, kind, label in rows} == {
        (metric.name + suffix[metric.kind], metric.kind, metric.label) for metric in METRICS
    }
    used = {text for text in constants() if re.fullmatch(r"troupe_[a-z_]+", text)}
    assert {metric.name for metric in METRICS} <= used


def test_every_log_action_is_in_the_table_and_no_other() -> None:
    """An operator would search the documentation for a name in the log and find nothing."""
    written = set(OPERATIONS) | set(logged.OPERATIONS)
    for package in ("runtime", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            written |= set(re.findall(r'"action": "([a-z_.]+)"', path.read_text()))
    named = first_column("Log actions")
    phases = {name for name in named if name.startswith("cluster.")}
    assert named - phases == {name for name in written if not name.startswith("cluster.")}
    assert phases == {f"cluster.{one}" for one in
                      ("starting", "ready", "stopping", "failed", "restarted")}  # fmt: skip


def test_every_public_event_is_in_the_table_and_no_other() -> None:
    """A client would meet an event nobody has described, or wait for one that never comes."""
    pattern = r"(?:agent|job|issue|review|schedule|scheduler):[a-z_]+"
    written = {text for text in constants() if re.fullmatch(pattern, text)} - {"scheduler:main"}
    named = first_column("Public events")
    assert written <= named
    made = {  # by f-strings; the words come from these
        **{f"job:{word}": word for word in ("waiting", "paused", "failed", "cancelled")},
        **{f"agent:{word}": word for word in ("completed",)},
        **{f"review:{word}": word for word in ("requested", "approved", "rejected", "superseded")},
        "issue:message": "message",
    }
    words = set(constants())
    assert {event for event, word in made.items() if word in words} == set(made)
    assert named - written - set(made) == {"issue:<status>"}


RAYS_LABELS = {"WorkerId", "NodeAddress", "Component", "SessionName", "Version"}
SECONDS, RATE, SHARE, COUNT = "s", {"ops", "reqps"}, "percentunit", "short"


def exported() -> dict[str, tuple[str, set[str]]]:
    """What Prometheus shows: name -> kind of series, its labels; by the manual's table."""
    rows = re.findall(r"^\| `(ray_\w+)` \| (\w+) \| (.*?) \|", section("Metrics"), re.MULTILINE)
    found = {}
    for name, kind, label in rows:
        labels = {label.strip("` ")} - {""} | RAYS_LABELS
        if kind == "histogram":
            found[name] = ("bucket", labels | {"le"})
            for part in ("sum", "count"):
                found[name.replace("_bucket_", f"_{part}_")] = ("counter", labels)
        else:
            found[name] = (kind, labels)
    return found


def label_values() -> dict[str, set[str]]:
    """The values of each label of which the manual's table names any."""
    found: dict[str, set[str]] = {}
    for label, meaning in re.findall(r"^\| `ray_\w+` \| \w+ \| `(\w+)` \| (.*) \|$",
                                     section("Metrics"), re.MULTILINE):  # fmt: skip
        if values := set(re.findall(r"`(\w+)`", meaning)):
            found.setdefault(label, set()).update(values)
    return found


def test_the_table_names_every_end_of_a_run() -> None:
    """A rate would be asked for by a word that no run ever ends with."""
    assert label_values()["outcome"] == set(OUTCOMES)


@dataclass(frozen=True)
class Selector:
    """`name{label="value"}[5m]`, and the function that it is the argument of."""

    name: str
    matched: dict[str, set[str]]
    """By the label the values it may have."""
    over: str
    function: str


def selectors(expression: str) -> list[Selector]:
    pattern = r"(?:(\w+)\()?\b(ray_\w+)(\{[^}]*\})?(\[\w+\])?"
    return [
        Selector(
            name,
            {
                label: set(values.split("|"))
                for label, values in re.findall(r'(\w+)\s*(?:=~|=|!=|!~)\s*"([^"]*)"', labels)
            },
            over,
            function,
        )
        for function, name, labels, over in re.findall(pattern, expression)
    ]


def targets() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(panel, target) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_every_metric_of_the_manual_and_no_other() -> None:
    """A panel would stay empty for ever, or a figure be seen by nobody."""
    shown = {one.name for _, target in targets() for one in selectors(target["expr"])}
    known = exported()
    assert shown <= known.keys()
    parts = ("_sum_total", "_count_total")
    assert {name for name in known if not name.endswith(parts)} <= shown


@pytest.mark.parametrize(
    ("panel", "target"), targets(), ids=[f"{p['title']}-{t['refId']}" for p, t in targets()]
)
def test_a_query_of_the_dashboard_uses_each_metric_as_what_it_is(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    """A counter would be shown as it stands, a label be asked for that is never there."""
    expression, known = target["expr"], exported()
    assert expression.count("(") == expression.count(")")
    found = selectors(expression)
    labels = set.intersection(*(known[one.name][1] for one in found))
    for one in found:
        kind, has = known[one.name]
        assert (one.function == "rate") == bool(one.over) == (kind != "gauge"), one
        assert one.matched.keys() <= has, one
        for label, values in one.matched.items():
            assert values <= label_values().get(label, values), one
        assert (kind == "bucket") == expression.startswith("histogram_quantile("), one
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
    assert grouped <= labels
    assert any(known[one.name][0] == "bucket" for one in found) == ("le" in grouped)
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert named <= (grouped or labels)
    assert named == grouped - {"le"} or not grouped
    assert panel["fieldConfig"]["defaults"]["unit"] in units_of(expression, found)


def units_of(expression: str, found: list[Selector]) -> set[str]:
    """The units in which a query's result can be read."""
    if "/" in expression:
        return {SHARE}
    if any(one.name.removesuffix("_bucket_total").endswith("_seconds") for one in found):
        return {SECONDS}
    return RATE if found[0].function == "rate" else {COUNT}


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    """One would cover another, or a query its neighbour."""
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & seen and max(x for x, _ in cells) < 24
        seen |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_a_scheduler_without_a_meter_of_its_own_keeps_one() -> None:
    """The queue would not run where nobody looks at its figures."""
    from runtime.store.memory import MemoryStore

    clock = SystemClock()
    scheduler = Scheduler(MemoryStore(clock), clock, Ids(clock), lambda: 0.5)
    assert isinstance(scheduler._dispatcher._observed, Observed)


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
