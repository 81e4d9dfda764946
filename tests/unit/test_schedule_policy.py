"""Fates of due times, as pure functions: none is forgotten, none has two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.schedule.policy import GRACE_MS, SLICE, Fates, Moment, drain, settle
from runtime.schedule.record import CatchUp, Overlap, Spec, Streak, Waiting

NOW_MS = 1_800_000_000_000


def decided(fates: Fates) -> list[int]:
    """Due times that have an outcome; ranges by their count must have been equal neighbours."""
    ends = [run.from_ms for run in fates.runs]
    return [one.due_ms for one in fates.fires] + ends


specs = st.builds(
    lambda overlap, policy, window_s, cap: Spec(
        "cron", "* * * * *", overlap=overlap, catch_up=CatchUp(policy, window_s, cap)
    ),
    st.sampled_from(["skip", "queue_one", "queue_all", "cancel_running", "allow"]),
    st.sampled_from(["latest", "none", "all"]),
    st.sampled_from([0, 300, 86_400]),
    st.integers(1, 5),
)
moments = st.builds(
    Moment,
    st.just(NOW_MS),
    st.integers(0, 2),
    st.sampled_from([None, None, "paused"]),
    st.booleans(),
    st.just(False),
)


@given(
    spec=specs,
    moment=moments,
    ages_s=st.lists(st.integers(0, 4_000), unique=True, max_size=30),
    waited=st.lists(st.tuples(st.integers(5_000, 9_000), st.booleans()), max_size=6),
    more=st.booleans(),
)
def test_every_due_time_has_exactly_one_fate(
    spec: Spec, moment: Moment, ages_s: list[int], waited: list[tuple[int, bool]], more: bool
) -> None:
    """A due time would be lost, or run twice."""
    dues = sorted(NOW_MS - age_s * 1000 for age_s in ages_s)
    waits = {NOW_MS - age_s * 1000: late for age_s, late in waited}
    waiting = [Waiting(due_ms, waits[due_ms]) for due_ms in sorted(waits)]
    late = sum(due_ms < NOW_MS - GRACE_MS for due_ms in dues)
    fates = settle(spec, waiting, dues, moment, late=late, more=more and len(dues) > 1)
    taken = [due_ms for due_ms in dues if due_ms <= (fates.accounted_ms or 0)]
    counted = sum(run.count for run in fates.runs) + len(fates.fires) + len(fates.waiting)
    assert counted == len(taken) + len(waiting)
    singles = decided(fates) + [one.due_ms for one in fates.waiting]
    assert len(set(singles)) == len(singles)
    for run in fates.runs:
        inside = [due_ms for due_ms in dues if run.from_ms <= due_ms <= run.to_ms]
        if run.from_ms in dues:
            assert len(inside) == run.count
        else:
            assert run.count == 1
    if moment.hold:
        assert not fates.fires
    late_waiting = [one for one in fates.waiting if one.late]
    assert len(late_waiting) <= max(spec.catch_up.cap, len(waiting) + 1)


def after_an_outage(
    spec: Spec, outage_s: int, step_s: int, busy: int = 0
) -> tuple[list[int], list[Waiting], list[Streak]]:
    """The late due times, what waits in the end and all outcomes, slice by slice."""
    dues = list(range(NOW_MS - outage_s * 1000, NOW_MS, step_s * 1000))
    all_late = [due_ms for due_ms in dues if due_ms < NOW_MS - GRACE_MS]
    waiting: list[Waiting] = []
    runs: list[Streak] = []
    while dues:
        page, more = dues[: SLICE + 1], len(dues) > SLICE
        late = sum(due_ms < NOW_MS - GRACE_MS for due_ms in page)
        fates = settle(spec, waiting, page, Moment(NOW_MS, busy), late=late, more=more)
        waiting, runs = fates.waiting, runs + fates.runs
        dues = [due_ms for due_ms in dues if due_ms > (fates.accounted_ms or 0)]
    return all_late, waiting, runs


@pytest.mark.parametrize(
    ("step_s", "outage_s", "cap"),
    [
        (5, 600, 10),
        (60, 3_600, 1),
        (60, 3_600, 2),
        (1, 2_100, 100),
        (1, 3_000, 100),
        (5, 30_000, 10),
    ],
)
def test_the_newest_late_ones_are_caught_up_however_many_are_on_time(
    step_s: int, outage_s: int, cap: int
) -> None:
    """What is due each few seconds would never be caught up: those on time would fill the cap."""
    spec = Spec("interval", "", overlap="allow", catch_up=CatchUp("all", 86_400, cap))
    late, waiting, runs = after_an_outage(spec, outage_s, step_s)
    assert [one.due_ms for one in waiting if one.late] == late[-cap:]
    assert {(run.outcome, run.reason) for run in runs} == {("missed", "beyond_cap")}
    assert sum(run.count for run in runs) == len(late) - cap


@pytest.mark.parametrize("overlap", ["skip", "queue_one"])
def test_the_newest_late_one_runs_though_a_slice_ends_with_it(overlap: Overlap) -> None:
    """It would be coalesced into one that is skipped, and nothing would run for the outage."""
    spec = Spec("interval", "", overlap=overlap, catch_up=CatchUp("latest", 86_400, cap=59))
    dues = [NOW_MS - GRACE_MS + (place - SLICE + 59) * 1000 for place in range(SLICE + 1)]
    late = sum(due_ms < NOW_MS - GRACE_MS for due_ms in dues)
    fates = settle(spec, [], dues, Moment(NOW_MS, busy=1), late=late, more=True)
    assert fates.accounted_ms == dues[late - 1]
    assert [one.due_ms for one in fates.waiting if one.late] == [dues[late - 1]]


@given(spec=specs, moment=moments, paced=st.booleans(), ages_s=st.sets(st.integers(0, 500)))
def test_what_waits_starts_one_at_a_time(
    spec: Spec, moment: Moment, paced: bool, ages_s: set[int]
) -> None:
    """The end of a run would be followed by all that waited at once."""
    waiting = [Waiting(NOW_MS - age_s * 1000, bool(age_s % 2)) for age_s in sorted(ages_s)[::-1]]
    fates = drain(spec, waiting, moment, paced=paced)
    assert len(fates.fires) <= 1
    counted = sum(run.count for run in fates.runs) + len(fates.fires) + len(fates.waiting)
    assert counted == len(waiting)
    if moment.busy and spec.overlap != "allow":
        assert not fates.fires
