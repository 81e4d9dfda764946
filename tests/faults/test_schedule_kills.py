"""The scheduler is killed again and again while schedules fire each second.

Over SQLite, with the scheduler in the store's process, as it is embedded, and in one of its
own, as it is with Redis; the host is always another.  Who judges opens the file with
`sqlite3` when all of them are gone, and shares no code with what wrote it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.ids import Ids
from runtime.store.remote import RemoteStore
from tests.queue_process import QueueProcess
from tests.store_process import StoreProcess

KILLS = int(os.environ.get("TROUPE_SCHEDULER_KILLS", "50"))
SCHEDULES = 16
CAP = 6
SECOND_MS = 1_000


@pytest.mark.slow
@pytest.mark.parametrize("beside", [True, False], ids=["with the store", "alone"])
async def test_fifty_kills_of_the_scheduler_miss_no_due_time_and_repeat_none(
    tmp_path: Path, beside: bool
) -> None:
    """A crash of the scheduler would cost runs, or double them, or let too many run at once."""
    process = StoreProcess(tmp_path, scheduler=CAP if beside else 0)
    await process.start()
    store = RemoteStore(process.socket)
    clock = SystemClock()
    client = Client(store, clock, Ids(clock), "acme", "test")
    host = QueueProcess(process.socket, "host", CAP)
    scheduler = process if beside else QueueProcess(process.socket, "scheduler", CAP)
    await host.start()
    if not beside:
        await scheduler.start()
    drawn = random.Random(5)
    for number in range(SCHEDULES):
        await _ask(client, number, "set", schedule={
            "interval": "every 1 second", "overlap": "allow", "priority": "HIGH",
        })  # fmt: skip
    began_s = time.monotonic()
    for _ in range(KILLS):
        await asyncio.sleep(drawn.uniform(0.05, 1.5))
        await scheduler.kill()
        await scheduler.start()
    seconds = int(time.monotonic() - began_s)
    for number in range(SCHEDULES):
        await _ask(client, number, "pause", drain=True)
        await _ask(client, number, "resume")
        await _ask(client, number, "delete")
    await _until_idle(client)
    assert host.alive
    await host.kill()
    await store.close()
    await scheduler.kill()
    await process.kill()
    judged = judge(tmp_path / "store.db")
    print(json.dumps({"kills": KILLS, "beside": beside, **judged}))
    assert judged["missed"] == judged["double"] == judged["strange"] == 0
    assert judged["jobsNotDone"] == 0
    assert judged["atOnce"] <= CAP
    assert judged["due"] >= seconds * SCHEDULES
    assert judged["schedulers"] > KILLS * 0.7  # some are killed before they have taken over


async def _ask(client: Client, number: int, verb: str, **content: Any) -> None:
    asked = {"agentId": f"worker:{number}", "by": "test", **content}
    answer = await client.ask("scheduler:main", asked, f"schedule.{verb}", wait_s=60.0)
    assert answer["ok"], answer


async def _until_idle(client: Client) -> None:
    """Every job has ended, those that were paused with their schedule too."""
    async with asyncio.timeout(600):
        while True:
            counts = [
                await client.count("job", {"status": status})
                for status in ("pending", "running", "waiting", "paused")
            ]
            if not any(counts):
                return
            await asyncio.sleep(0.2)


def judge(database: Path) -> dict[str, int]:
    """What the file says, read by nothing of ours."""
    rows = sqlite3.connect(database)
    documents: dict[str, list[dict[str, Any]]] = defaultdict(list)
    found = rows.execute(
        "SELECT collection, body FROM document WHERE body IS NOT NULL AND collection IN "
        "('schedule_revision', 'occurrence', 'job')"
    )
    for collection, body in found:
        documents[collection].append(json.loads(body))
    outcomes: dict[str, Counter[int]] = defaultdict(Counter)
    deleted_ms = {one["scheduleId"]: one.get("toMs") for one in documents["schedule_revision"]}
    called_off = set()
    other = 0
    for one in documents["occurrence"]:
        first, last = one["dueMs"], one.get("toMs", one["dueMs"])
        times = range(first, last + 1, SECOND_MS)
        assert len(times) == one.get("count", 1)
        outcomes[one["scheduleId"]].update(times)
        other += 0 if one["outcome"] == "fired" else len(times)
        if one["atMs"] < first == deleted_ms[one["scheduleId"]]:  # deleted just before it was due
            called_off.add(one["jobId"])
    due = missed = double = strange = 0
    for revision in documents["schedule_revision"]:
        anchor, seen = revision["spec"]["anchorMs"], outcomes.pop(revision["scheduleId"])
        after, until = revision["fromMs"], revision["toMs"]
        expected = set(range(anchor + SECOND_MS, until + 1, SECOND_MS))
        expected = {at for at in expected if at > after}
        due += len(expected)
        missed += sum(seen[at] == 0 for at in expected)
        double += sum(seen[at] > 1 for at in expected)
        strange += sum(at not in expected for at in seen)
    jobs = {job["id"] for job in documents["job"]}
    fired = [one["jobId"] for one in documents["occurrence"] if one["outcome"] == "fired"]
    assert len(fired) == len(set(fired))
    return {
        "due": due,
        "fired": len(fired),
        "otherwise": other,
        "missed": missed,
        "double": double,
        "strange": strange + len(outcomes) + len(jobs ^ set(fired)),
        "jobsNotDone": sum(
            job["status"] != "completed"
            and not (job["status"] == "cancelled" and job["id"] in called_off)
            for job in documents["job"]
        ),
        "atOnce": _at_once(rows),
        "schedulers": rows.execute(
            "SELECT epoch FROM agent WHERE address = 'system/scheduler:main'"
        ).fetchone()[0],
    }


def _at_once(rows: sqlite3.Connection) -> int:
    """The most runs at one moment, from the messages that begin and end them."""
    spans = rows.execute(
        "SELECT m.body, m.accepted_ms, o.finished_ms FROM message m JOIN outcome o USING (seq)"
    )
    moments: list[tuple[int, int]] = []
    for body, began_ms, ended_ms in spans:
        if json.loads(body)["messageType"] == "job.run":
            moments += [(began_ms, 1), (ended_ms, -1)]
    most = now = 0
    for _, change in sorted(moments):  # at one moment ends come first
        now += change
        most = max(most, now)
    return most
