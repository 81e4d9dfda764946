"""Sessions, read from what a run leaves behind."""

from __future__ import annotations

import json

import pytest

from runtime.clock import iso
from runtime.hosting.suspects import CUTS_MAX
from runtime.ids import SCHEDULER
from runtime.job import AgentJob
from runtime.sessions import CUTS_KNOWN_MAX, Session, end_of_run, session_of
from runtime.store.contract import StoredMessage


def session(cuts: list[int]) -> Session:
    """Of a run that began at 0 and was cut at these times."""
    asked = json.dumps({"messageType": "job.run", "content": {"jobId": "job_1"}}).encode()
    reply = json.dumps({"outcome": "completed", "cuts": cuts}).encode()
    stored = StoredMessage(
        1, "run:job_1:1", SCHEDULER, "acme/code:a", asked, 0,
        status="processed", reply=reply, finished_ms=99_000,
    )  # fmt: skip
    found = session_of(stored)
    assert found is not None
    return found


@pytest.mark.parametrize("count", [1, CUTS_MAX - 1, CUTS_MAX, CUTS_MAX + 4])
def test_a_run_that_is_cut_often_is_told_with_stretches_that_were(count: int) -> None:
    """One would begin with the run although it was cut before, and all have others' numbers."""
    cuts = [1_000 * number for number in range(1, count + 1)]
    began = {iso(cut): iso(cut - 1_000) for cut in cuts}
    told = session(cuts[-CUTS_MAX:]).interrupted or ()
    assert all(one.started_at == began[one.ended_at] for one in told)
    assert told[-1].ended_at == iso(cuts[-1])
    numbers = list(range(1, count + 1)) if count < CUTS_MAX else [None] * (CUTS_MAX - 1)
    assert [one.attempt for one in told] == numbers


def test_what_is_taken_for_all_cuts_is_less_than_a_host_keeps() -> None:
    """Cuts of which some are forgotten would be taken for all."""
    assert CUTS_KNOWN_MAX < CUTS_MAX


def test_a_run_whose_hosts_have_died_says_so() -> None:
    """Nothing was raised, and it was told as failed without a word of why."""
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="code", now_ms=0, payload={},
        error="poison: 3 hosts have died while they were at it",
    )  # fmt: skip
    assert json.loads(end_of_run("failed", job))["error"] == job.error
    assert "error" not in json.loads(end_of_run("cancelled", job))
