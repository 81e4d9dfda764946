"""The estimated wait promises what was measured, and nothing where nothing was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.intake.settings import IntakeSettings
from actors.intake.wait import SOON, UNKNOWN, estimated_wait, in_words
from runtime.console.load import Load, ServiceTime
from runtime.errors import SettingsError
from runtime.ids import SYSTEM
from runtime.store.contract import Commit, Put
from tests.http import HttpTroupe, populate

TWO_MINUTES = {"code": ServiceTime(3, 120.0)}


@pytest.mark.parametrize(
    ("pending", "running", "times", "words"),
    [
        (0, 0, {}, SOON),
        (0, 4, {}, SOON),
        (0, 5, {}, UNKNOWN),
        (1, 0, {}, UNKNOWN),
        (3, 5, {"code": ServiceTime(0, 0.0)}, UNKNOWN),
        (0, 5, TWO_MINUTES, SOON),
        (4, 5, TWO_MINUTES, "2 minutes"),
        (5, 5, TWO_MINUTES, "3 minutes"),
        (2, 2, TWO_MINUTES, SOON),
        (499, 5, TWO_MINUTES, "4 hours"),
        (4, 5, {"code": ServiceTime(1, 60.0), "review": ServiceTime(3, 20.0)}, SOON),
        (9, 5, {"code": ServiceTime(1, 60.0), "review": ServiceTime(3, 20.0)}, "1 minute"),
    ],
)
def test_the_wait_follows_the_queue_and_the_measured_times(
    pending: int, running: int, times: dict[str, ServiceTime], words: str
) -> None:
    """Would tell a submitter two minutes whatever the queue is."""
    assert estimated_wait(Load(pending, running, times), jobs_at_once=5) == words


@given(st.integers(0, 500), st.integers(0, 50), st.integers(1, 50))
def test_a_longer_queue_never_means_a_shorter_wait(
    pending: int, running: int, at_once: int
) -> None:
    """Would promise less to those who come later."""
    waits = [
        _minutes(estimated_wait(Load(n, running, TWO_MINUTES), at_once))
        for n in (pending, pending + 1)
    ]
    assert waits == sorted(waits)


def _minutes(words: str) -> int:
    if words == SOON:
        return 0
    number, unit = words.split()
    return int(number) * (60 if unit.startswith("hour") else 1)


@given(st.floats(0, 1e7))
def test_words_are_never_shorter_than_the_seconds(seconds: float) -> None:
    """Would round a wait down."""
    assert in_words(seconds) == SOON or _minutes(in_words(seconds)) * 60 >= seconds


async def test_what_the_scheduler_measured_is_what_is_told() -> None:
    """Would read another document than the scheduler writes."""
    api = HttpTroupe()
    for number in range(5):
        await populate(api, f"org{number}")
    times = json.dumps({"code": {"count": 2, "meanS": 600.0}}).encode()
    jobs = [
        Put("job", f"j{number}", "globex", b"{}", (f"status={status}",))
        for number, status in enumerate(["running"] * 5 + ["pending"] * 4)
    ]
    stats = Put("stats", "service_times", SYSTEM, times)
    await api.store.commit([Commit(SYSTEM, puts=(stats, *jobs))])
    async with await api.client() as ann:
        answer = await ann.post("/api/issues", json={"source": "manual", "title": "t"})
    assert answer.json()["estimatedWait"] == "10 minutes"


def test_settings_are_read_as_the_department_reads_them() -> None:
    """Would let intake accept a repository that every agent then refuses."""
    settings = IntakeSettings.from_env(
        {
            "TROUPE_REPOSITORY_ROOTS": "/a:/b",
            "TROUPE_REPOSITORY_HOSTS": "Git.Example",
            "SCHEDULER_MAX_CONCURRENT": "3",
        }
    )
    assert [str(root) for root in settings.repository_roots] == ["/a", "/b"]
    assert (settings.repository_hosts, settings.jobs_at_once) == (("git.example",), 3)
    default = IntakeSettings.from_env({})
    assert (default.repository_roots, default.jobs_at_once) == ((), 5)
    for wrong in ("0", "x", "-1", "1.5", "9" * 5_000):
        with pytest.raises(SettingsError):
            IntakeSettings.from_env({"SCHEDULER_MAX_CONCURRENT": wrong})
