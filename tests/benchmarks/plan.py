"""What is measured beside what: our cases, the peers', and the rows they make.

A round runs every case once, ours and the peers' in turns, so that a slow hour
of the machine slows all of them.  A row's ratio is that of the same round; the
table shows the median over the rounds with the least and the most.

`make bench` needs no peers.  With `BENCH_HOME` (the folder that the peers'
`setup.sh` filled, beside it `benchlib.py` and `cases/`) they run as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """One script that prints RESULT lines."""

    bench: str
    """P1 messages, P2 jobs, P3 schedules, P4 HTTP, P5 WebSocket, P6 recovery, P7 memory, P8 the
    loop of an agent."""
    words: tuple[str, ...]
    """Ours: a module with its arguments. A peer's: a script with its arguments."""
    limit_s: float = 120.0
    rounds_max: int = 9
    venv: str = ""
    """A peer's; empty: ours."""
    env: Mapping[str, str] = field(default_factory=dict)


OURS: Final = (
    Case("P1", ("tests.benchmarks.cases.messages",)),
    Case("P1", ("tests.benchmarks.cases.fanout",)),
    Case("P1", ("tests.benchmarks.cases.cluster", "ask"), 240),
    Case("P2", ("tests.benchmarks.bench_jobs",), 240),
    Case("P3", ("tests.benchmarks.bench_schedules",), 900, 1),
    Case("P3", ("tests.benchmarks.bench_cron",), 300, 1),
    Case("P4", ("tests.benchmarks.cases.cluster", "intake"), 240),
    Case("P5", ("tests.benchmarks.bench_events",), 240),
    Case("P5", ("tests.benchmarks.cases.cluster", "sockets"), 240),
    Case("P6", ("tests.benchmarks.cases.cluster", "kill"), 300),
    Case("P6", ("tests.benchmarks.cases.cluster", "node"), 400, 1),
    Case("P7", ("tests.benchmarks.cases.idle",), 600, 1),
    Case("P7", ("tests.benchmarks.cases.cold",), 900, 1),
    Case("P8", ("tests.benchmarks.cases.rounds",), 300),
)
PEERS: Final = (
    Case("P1", ("p1_restate.py",), 120, venv="venv-peers", env={"N": "3000"}),
    Case("P1", ("p1_dbos.py", "sqlite", "direct"), 120, venv="venv-peers", env={"N": "500"}),
    Case("P1", ("p1_ray.py", "ray1"), 120, venv="venv-ray", env={"N": "6000"}),
    Case("P1", ("p1_floor.py",), 60, venv="venv-ray"),
    Case("P2", ("p2.py", "bullmq", "everysec"), 120, venv="venv-peers"),
    Case("P2", ("p2.py", "bullmq", "always"), 120, venv="venv-peers"),
    Case("P3", ("p3.py", "late", "sqlite"), 120, 1, venv="venv-peers"),
    Case("P3", ("p3.py", "cron"), 120, 1, venv="venv-peers"),
    Case("P4", ("p4.py", "serve"), 180, venv="venv-ray"),
    Case("P5", (str(ROOT / "tests/benchmarks/cases/hub.py"),), 180, venv="venv-ray"),
    Case("P6", ("p6.py", "actor"), 180, venv="venv-ray"),
    Case("P6", ("p6.py", "node"), 400, 1, venv="venv-ray"),
    Case("P7", ("p7.py", "asyncio", "100000"), 120, 1, venv="venv-ray"),
    Case("P8", ("p8.py", "anthropic-raw"), 120, venv="venv-peers"),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    case: str
    """How the name of our case begins."""
    metric: str
    target: str
    """DESIGN section 10."""
    peers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Peer -> (how its case's name begins, its metric)."""
    less_is_better: bool = False


RESTATE: Final = "P1 restate virtual object (24"
RAY: Final = "P1 raw Ray, 1"
DBOS: Final = "P1 DBOS sqlite"
BARE: Final = "P1 reference: full durable step"
"""Accept, handle, commit in one process without a framework: how fast the machine is."""
MESSAGES: Final = "P1 troupe, one host"
EVERYSEC: Final = "P2 bullmq redis-everysec c=50"
NEXT: Final = "P3 troupe next due time"
APSCHEDULER: Final = "P3 APScheduler sqlite: 1000 fire in one second, misfire_grace=1"
PATIENT: Final = "P3 APScheduler sqlite: 1000 fire in one second, misfire_grace=None"
"""It drops none then, and is late instead."""
ALWAYS: Final = "P2 bullmq redis-always c=50"


def _messages(metric: str) -> dict[str, tuple[str, str]]:
    return {
        "Restate": (RESTATE, metric),
        "DBOS": (DBOS, metric),
        "raw Ray": (RAY, metric),
        "bare step": (BARE, metric),
    }


def _bullmq(metric: str) -> dict[str, tuple[str, str]]:
    return {"BullMQ everysec": (EVERYSEC, metric), "BullMQ always": (ALWAYS, metric)}


def _hub(clients: int, metric: str, target: str) -> tuple[str, str, str, Mapping[str, Any]]:
    hub = (f"P5 hub behind Serve clients={clients}", metric)
    return f"P5 troupe websocket clients={clients}", metric, target, {"Serve + hub": hub}


def _commits(clients: int) -> tuple[str, str, str]:
    return f"P5 troupe websocket clients={clients}", "commit_p99_ms", ""


def _schedules(
    count: str, case: str, targets: Sequence[str], beside: Sequence[Mapping[str, Any]]
) -> tuple[Row, ...]:
    """The rows of so many schedules; `beside` is that of the lateness and of what is dropped."""
    startup, select, loop, middle, late, dropped = targets
    return (
        Row(f"{count} cron schedules: start-up, s", case, "startup_s", startup, {}, True),
        Row("1,000 due: selection, us", case, "select_1000_us", select, {}, True),
        Row("the same: loop, p99 ms", case, "loop_p99_ms", loop, {}, True),
        Row("1,000 in one second: lateness, p50 ms", case, "late_p50_ms", middle, {}, True),
        Row("the same, p99 ms", case, "late_p99_ms", late, beside[0], True),
        Row("the same: dropped", case, "dropped", dropped, beside[1], True),
    )


ROWS: Final = (
    Row("durable messages/s, 64 in flight", MESSAGES, "c64_msgs_s", ">= 20,000",
        _messages("c64_msgs_s")),
    Row("the same, p50 ms", MESSAGES, "c64_p50_ms", "<= 3.5", _messages("c64_p50_ms"), True),
    Row("messages/s, 1,024 in flight", MESSAGES, "c1024_msgs_s", ">= 25,000",
        _messages("c64_msgs_s") | {"bare step": (BARE, "c1024_msgs_s")}),
    Row("one-way messages/s until all are in the state", MESSAGES, "oneway_done_s", "",
        {"Restate": (RESTATE, "oneway_done_s")}),
    Row("fan-out to another host, messages/s", "P1 troupe fan-out", "fanout_msgs_s", ">= 15,000"),
    Row("one ask inside a host, p50 ms", MESSAGES, "c1_p50_ms", "<= 1.0",
        _messages("c1_p50_ms"), True),
    Row("one ask through Ray, p50 ms", "P1 troupe ask", "c1_p50_ms", "<= 2.5",
        _messages("c1_p50_ms"), True),
    Row("no-op jobs/s, 50 at once", "P2 troupe standing", "jobs_s", ">= 8,000",
        _bullmq("jobs_s")),
    Row("the same, an agent for each", "P2 troupe own", "jobs_s", "", _bullmq("jobs_s")),
    Row("pick-up by an idle host, p50 ms", "P2 troupe standing", "pickup_p50_ms", "<= 1.5",
        _bullmq("pickup_p50_ms"), True),
    Row("pick-up, p99 ms", "P2 troupe standing", "pickup_p99_ms", "<= 5",
        _bullmq("pickup_p99_ms"), True),
    Row("the same right after another job, p50 ms", "P2 troupe standing", "busy_p50_ms", "",
        less_is_better=True),
    Row("p95 wait beside 10,000 queued jobs of another organization, times that alone",
        "P2 troupe fairness", "ratio", "<= 2", less_is_better=True),
    *_schedules("10,000", "P3 troupe 10000 schedules", ("", "", "", "", "", ""), ({}, {})),
    *_schedules("100,000", "P3 troupe 100000 schedules",
        ("<= 1.5", "<= 1,000", "<= 20", "", "<= 60", "0"),
        ({"APScheduler SQLite": (PATIENT, "late_p99_ms")},
         {"APScheduler SQLite": (APSCHEDULER, "missed")})),
    Row("a next due time, weekdays at 9:30 in Berlin, us", NEXT,
        "next_weekday9_berlin_us", "<= 20", {
            name: ("P3 cost of the next fire time", f"{name}{new}_next_weekday9_berlin_us")
            for name, new in (("croniter", "_new"), ("cronsim", "_new"), ("apscheduler", ""))
        }, True),
    Row("the same, the slowest of the common expressions, p50 us", NEXT, "common_p50_us", "<= 20",
        less_is_better=True),
    Row("the same, the slowest call of any expression, us", NEXT, "slowest_us", "<= 1,000",
        less_is_better=True),
    Row("POST /api/issues, 1 connection, p50 ms", "P4 troupe", "c1_p50_ms", "<= 3",
        {"Serve, no-op": ("P4 serve", "c1_p50_ms")}, True),
    Row("POST /api/issues/s, 32 connections", "P4 troupe", "c32_rps", ">= 1,500",
        {"Serve, no-op": ("P4 serve", "c32_rps")}),
    Row("commit to WebSocket, 1 client, p50 ms", *_hub(1, "p50_ms", "<= 5"), True),
    Row("the same, p99 ms", *_hub(1, "p99_ms", "<= 10"), True),
    Row("those commits until they are answered, p99 ms", *_commits(1), less_is_better=True),
    Row("commit to WebSocket, 100 clients, p50 ms", *_hub(100, "p50_ms", "<= 5"), True),
    Row("the same, p99 ms", *_hub(100, "p99_ms", "<= 20"), True),
    Row("those commits until they are answered, p99 ms", *_commits(100), less_is_better=True),
    Row("the same without Serve, p50 ms", "P5 troupe, one API process, clients=100", "p50_ms", "",
        {"bare sockets": ("P5 floor, one API process, clients=100", "p50_ms")}, True),
    Row("host killed with 1,000 agents, s to the first right answer", "P6 troupe kill",
        "median_s", "<= 0.8", {"Ray actor": ("P6 kill -9 of a Ray actor", "median_s")}, True),
    Row("node lost, s until all agents answer right", "P6 troupe node", "all_s", "<= 12",
        {"Ray actor": ("P6 kill -9 of a worker node", "median_s")}, True),
    Row("an idle agent in memory, bytes (100,000 of them)", "P7 troupe idle", "bytes_each",
        "<= 5,000", {"asyncio task": ("P7 asyncio", "with_task_and_queue_bytes")}, True),
    Row("cold agents answering/s", "P7 troupe idle", "cold_s", ""),
    Row("1,000,000 agents on disk: a cold answer, p50 ms", "P7 troupe agents on disk",
        "cold_p50_ms", "<= 5", less_is_better=True),
    Row("added to a round without a tool, ms", "P8 troupe", "none_p50_ms", "<= 2.5",
        less_is_better=True),
    Row("added to a round with bash, 5,000 files, ms", "P8 troupe", "bash_p50_ms", "<= 60",
        less_is_better=True),
    Row("a round of the loop, tool excluded, ms", "P8 troupe", "per_step_ms", "",
        {"anthropic SDK": ("P8 anthropic-raw", "per_step_ms")}, True),
)  # fmt: skip
