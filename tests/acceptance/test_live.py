"""Events, figures and log lines of a real deployment, as an operator sees them."""

from __future__ import annotations

import asyncio
import json
import random
import re
import urllib.request
from contextlib import aclosing, suppress
from functools import partial

import pytest

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.cluster.settings import ClusterSettings, DataDir
from runtime.cluster.stores import local_client
from runtime.ids import HOME, Ids
from runtime.metrics import METRICS
from runtime.turn import feed_event
from runtime.watching import watch
from tests.acceptance.deployment import Deployment
from tests.faults.test_events_kills import LAST, Seen, judged

pytestmark = pytest.mark.ray

EXPORTED_S = 40.0
"""Until a figure of ours is told by Ray: we hand on every five seconds, it every ten."""

REPLACED_S = 60.0
"""Until Serve has made another replica in the place of one that was killed."""


async def walked(troupe: Deployment, ends: str) -> list[str]:
    """The names of an issue's events over Serve's WebSocket, from its creation to `ends`."""
    names: list[str] = []
    url = f"http://127.0.0.1:{troupe.port}"
    async with asyncio.timeout(120), aclosing(watch(url, troupe.key, ["monitoring"])) as events:
        async for event in events:
            names.append(event.name)
            if event.name == "opened" and len(names) == 1:
                repository = await asyncio.to_thread(troupe.repository, "watched")
                await asyncio.to_thread(troupe.submit, repository, externalId="watched")
            if event.name == ends:
                return names
    raise AssertionError("it ended by itself")


def test_an_issue_is_watched_over_serves_websocket(troupe: Deployment) -> None:
    """The stream would work under a server of the tests, and not where it is deployed."""
    names = asyncio.run(walked(troupe, "issue:review"))
    for name in ("issue:created", "job:started", "agent:started", "agent:progress",
                 "agent:completed", "review:requested"):  # fmt: skip
        assert name in names, names


@pytest.mark.slow
def test_prometheus_finds_our_figures_and_logs_are_json(troupe: Deployment) -> None:
    """A dashboard would stay empty, and a program could not read the logs."""
    ray_temp = DataDir(troupe.data).ray_temp
    service = json.loads((ray_temp / "prom_metrics_service_discovery.json").read_text())
    targets = [target for one in service for target in one["targets"]]

    def shown() -> set[str]:
        found = set()
        for target in targets:
            with suppress(OSError):  # Ray names ports of parts that are only just beginning, too
                with urllib.request.urlopen(f"http://{target}/metrics", timeout=15) as answer:
                    text = answer.read().decode()
                found |= set(re.findall(r"^ray_(troupe_\w+)", text, re.MULTILINE))
        return found

    always = {"troupe_jobs", "troupe_agents", "troupe_runs_started_total",
              "troupe_run_seconds_bucket_total", "troupe_store_commits_total",
              "troupe_round_seconds_count_total"}  # fmt: skip
    repository = troupe.repository("figures")
    issue = troupe.submit(repository, externalId="figures")
    troupe.until(f"/api/issues/{issue}", lambda found: found["status"] == "review")
    troupe.wait(lambda: always <= shown(), f"{always} in {targets}", EXPORTED_S)
    known = {metric.name for metric in METRICS}
    for name in shown():
        assert re.sub(r"(_bucket|_sum|_count)?_total$", "", name) in known, name
    lines = [
        json.loads(line)
        for file in (ray_temp / "session_latest" / "logs").glob("worker-*.err")
        for line in file.read_text(errors="replace").splitlines()
        if line.startswith('{"time"')
    ]
    assert {"scheduler.started", "host.started", "job.started"} <= {
        line.get("action") for line in lines
    }


@pytest.mark.slow
def test_clients_of_killed_serve_replicas_miss_nothing(troupe: Deployment) -> None:
    """What holds for servers of the tests would not hold for Serve's replicas and proxies."""
    asyncio.run(_through_kills(troupe, clients=200, kills=20))


async def _through_kills(troupe: Deployment, clients: int, kills: int) -> None:
    settings, clock = ClusterSettings.read(DataDir(troupe.data)), SystemClock()
    store = local_client(settings)
    publisher = Client(store, clock, Ids(clock), HOME, "test")
    url, chance = f"http://127.0.0.1:{troupe.port}", random.Random(3)
    seen = [Seen(["issue:kills"]) for _ in range(clients)]
    published: list[tuple[int, str]] = []
    over = asyncio.Event()

    def replaced(before: set[int]) -> bool:
        there = set(troupe.pids("replica"))
        return there != before and len(there) >= settings.replicas

    async def tell(event: str, number: int) -> None:
        # with the true time: what is older than a month is forgotten, and then it is a reset
        told = feed_event(HOME, event, {"n": number}, ("issue:kills",), clock.now_ms())
        await publisher.commit(events=[told])

    async def publish() -> None:
        while not over.is_set():
            await tell("test:event", len(published))
            published.append((len(published), "issue:kills"))
            await asyncio.sleep(0.02)
        await tell(LAST, len(published))

    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(one.watch(url, troupe.key)) for one in seen]
        for one in seen:
            await one.opened.wait()
        publishing = tasks.create_task(publish())
        for _ in range(kills):
            await asyncio.sleep(1 + chance.random())
            before = set(await asyncio.to_thread(troupe.pids, "replica"))
            await asyncio.to_thread(troupe.kill, "replica")
            await asyncio.to_thread(
                troupe.wait, partial(replaced, before), "another replica", REPLACED_S
            )
        over.set()
        await publishing
        async with asyncio.timeout(120):
            await asyncio.wait(watching)
    await store.close()
    judged(seen, published, kills)
