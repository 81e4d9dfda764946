"""I18, its second half: organizations that have jobs to start take turns."""

from __future__ import annotations

from runtime.ids import SCHEDULER
from runtime.schedule.queue import OWED_ROUNDS
from runtime.store.contract import Send
from runtime.verify.invariants import unjudged
from runtime.verify.invariants.shares import SHARE_TOLERANCE, WINDOW_MIN, fair_shares, windows
from tests.histories import Told, message

ACME, BETA = "acme", "beta"
SHARE = WINDOW_MIN
SLOTS = 20


def rushed(*shares: int, agent: str | None = None, ends: bool = True) -> Told:
    """A queue of both organizations, of which the scheduler starts so many of each in turns."""
    told = Told()
    told.add("world", "info", "limits", value={"total": SLOTS, "organization": 16})
    told.claim(SCHEDULER, "scheduler/1", "scheduler")
    for number in range(3 * SHARE):
        for organization in (ACME, BETA):
            queued(told, f"{organization}{number}", organization, agent)
    started = [
        (f"{organization}{number}", organization)
        for organization, share in zip((ACME, BETA), shares, strict=True)
        for number in range(share)
    ]
    for job, organization in sorted(started, key=lambda one: int(one[0][4:])):
        told.start(job, organization)
        if ends:
            worker = f"{organization}/worker:{job}"
            told.write(worker, acks=(f"run:{job}:{told.now_ms}",))
    return told


def queued(told: Told, job: str, organization: str, agent: str | None) -> None:
    boss = f"{organization}/boss:0"
    word = Send(f"queued:{job}", boss, SCHEDULER, message("job.queued", job))
    put = told.job(job, organization, agent_id=agent)
    told.write(boss, sends=(word,), puts=(put,))
    told.scheduler(acks=(f"queued:{job}",))


def test_an_organization_that_starves_is_seen() -> None:
    """One tenant's burst could keep another waiting."""
    owed = OWED_ROUNDS * SLOTS // 2  # of two, one can have come late
    allowed = int(SHARE_TOLERANCE * SHARE) + owed
    assert fair_shares(rushed(SHARE + allowed, SHARE - allowed).end()) == []
    found = fair_shares(rushed(SHARE + allowed + 1, SHARE - allowed - 1).end())
    assert [one.text for one in found] == ["acme had 91 of 100", "beta had 9 of 100"]


def test_a_short_queue_and_one_of_a_shared_agent_say_nothing() -> None:
    """What has to wait, or is too little, would look unfair."""
    assert list(windows(rushed(SHARE - 1, SHARE).end())) == []
    assert list(windows(rushed(2 * SHARE, 0, agent="worker:one").end())) == []


def test_an_organization_at_its_limit_has_nothing_to_start() -> None:
    """The other's turns would be held against the scheduler."""
    assert list(windows(rushed(14, 2 * SHARE, ends=False).end())) == []


def test_a_rule_that_had_nothing_to_judge_is_named() -> None:
    """A report would count rules as kept that nothing was held against."""
    told = rushed(SHARE, SHARE)
    silent = unjudged(told.end())
    assert "I18 shares" not in silent
    assert {"I8", "I12", "I20", "I22 budgets"} <= set(silent)
    told.add("reader", "info", "due", key="s", value=[])
    assert "I8" not in unjudged(told.facts)
    assert "I18 shares" in unjudged(rushed(1, 1).end())
