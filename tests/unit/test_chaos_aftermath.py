"""The judge of a chaos run: a good end passes, and each thing that could be wrong is found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.job import AgentJob, JobStatus
from runtime.journal import encode
from runtime.store.contract import FeedEntry, JournalEvent, Snapshot, Step, StoredMessage
from runtime.verify.chaos.aftermath import CHECKS, Aftermath, Remains, violations
from runtime.verify.chaos.outside import Called

A, BOSS, JOB = "default/account:0", "default/boss:0", "job_1"


def message(seq: int, id: str, where: str = A, **fields: Any) -> StoredMessage:
    made = StoredMessage(seq, id, "default/client:x", where, b"{}", 1, None, "processed")
    return replace(made, **fields)


def event(version: int, cause: str | None, patch: list[list[Any]]) -> JournalEvent:
    return JournalEvent(version, "changed", encode(patch), 1, 1, cause)


def account() -> Remains:
    journal = [
        event(1, "m1", [["set", ["units"], 100], ["set", ["opened"], 1]]),
        event(2, "m2", [["set", ["units"], 90]]),
        event(3, "m3", [["set", ["units"], 100]]),
    ]
    messages = [message(1, "m1"), message(2, "m2"), message(3, "m3")]
    return Remains(messages, journal, 2, Snapshot(b'{"units":90,"opened":1}'))


def boss(*words: str) -> Remains:
    return Remains(
        [message(4, "hire", BOSS), message(9, "told", BOSS)],
        [event(1, "hire", [["set", ["heard"], {}]]),
         event(2, "told", [["set", ["heard", JOB], list(words)]])],
        0,
        None,
    )  # fmt: skip


def job(status: JobStatus = JobStatus.COMPLETED) -> AgentJob:
    made = AgentJob.new(
        id=JOB, organization_id="default", agent_type="worker", now_ms=1, payload={"steps": [0]}
    )
    return made.model_copy(update={"status": status})


def step(**fields: Any) -> Step:
    made = Step("s0", "external", b"null", 1, 1, json.dumps(f"{JOB}:s0#1").encode(), 50)
    return replace(made, **fields)


def feed(*events: str) -> list[FeedEntry]:
    rooms = (f"job:{JOB}",)
    return [
        FeedEntry(cursor, "default", name, rooms, 1, b"{}")
        for cursor, name in enumerate(events, start=1)
    ]


def good(**changed: Any) -> Aftermath:
    parts: dict[str, Any] = {
        "agents": {A: account(), BOSS: boss("job.completed")},
        "jobs": {JOB: job()},
        "steps": {JOB: [step()]},
        "feed": feed("job:started", "job:completed"),
        "promised": {"m1": A, "m2": A},
        "hired": [JOB],
        "calls": {f"{JOB}:s0": [Called(40, f"{JOB}:s0#1")]},
        "opening": 100,
    }
    return Aftermath(**(parts | changed))


def with_account(**changed: Any) -> Aftermath:
    one = account()
    parts = {name: changed.get(name, getattr(one, name)) for name in one.__dataclass_fields__}
    return good(agents={A: Remains(**parts), BOSS: boss("job.completed")})


def test_a_run_that_kept_its_promises_passes() -> None:
    """A judge that finds something in anything is not believed."""
    assert violations(good()) == []


BAD = {
    "a message that is gone": ("I1", good(promised={"m9": A})),
    "a message that waits": (
        "I1", with_account(messages=[message(1, "m1", status="pending"), message(2, "m2")]),
    ),
    "a message handled twice": (
        "I2", with_account(journal=[*account().journal, event(4, "m3", [])]),
    ),
    "a message handled before its elder": (
        "I3", with_account(messages=[message(1, "m2"), message(2, "m1"), message(3, "m3")]),
    ),
    "a hole in the journal": (
        "I5", with_account(journal=[account().journal[0], account().journal[2]]),
    ),
    "a snapshot of another state": (
        "I6", with_account(snapshot=Snapshot(b'{"units":90,"opened":2}')),
    ),
    "units from nowhere": ("IUnits", good(opening=99)),
    "a second birth": (
        "IUnits",
        with_account(journal=[event(1, "m1", [["set", ["units"], 100], ["set", ["opened"], 2]])]),
    ),
    "a result that nobody gave": ("I11", good(steps={JOB: [step(result=b'"else"')]})),
    "a call after the record": (
        "I11",
        good(calls={f"{JOB}:s0": [Called(40, f"{JOB}:s0#1"), Called(60, f"{JOB}:s0#2")]}),
    ),
    "a hole in the feed": ("I14", good(feed=feed("job:started", "job:completed")[1:])),
    "an end told twice": ("I14", good(feed=feed("job:completed", "job:completed"))),
    "a job that is gone": ("I19", good(jobs={})),
    "a job that still runs": ("I19", good(jobs={JOB: job(JobStatus.RUNNING)})),
    "an end that nobody was told": (
        "I19", good(agents={A: account(), BOSS: boss()}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_found(name: str) -> None:
    """A storm would be survived because nobody looked."""
    rule, after = BAD[name]
    assert rule in {one.rule for one in violations(after)}


def test_every_rule_has_a_case() -> None:
    """A check that can't fail would be counted as one that holds."""
    assert {rule for rule, _ in BAD.values()} == set(CHECKS)
