"""What becomes of due times: overlap, catch-up and holds, as pure functions.

`settle` takes due times in order and gives each one a fate: it fires, it waits,
or it ends with the name of why it did not run.  A due time that waits gets its
fate later, from `drain`, `settle` or `drop`; nothing else ever forgets one.

A due time is *late* when it should have started more than GRACE_MS ago: nobody
was there.  Late ones are a matter of the catch-up policy, the others of the
overlap policy:

    catch-up  latest          the newest runs, the others are coalesced into it
              none            missed
              all             the newest `cap` run, oldest first, the others are missed
              (older than the window: missed)
    overlap   skip            skipped while a run has not ended
              queue_one       one waits for the run to end, the next ones are skipped
              queue_all       WAITING_MAX wait
              cancel_running  the run is cancelled; the newest waits for it to end
              allow           it runs beside
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from runtime.schedule.nightly import window_s
from runtime.schedule.record import WAITING_MAX, Outcome, Spec, Streak, Waiting

GRACE_MS: Final = 60_000
"""A start that is late by no more is no catch-up: the scheduler was being restarted."""
SLICE: Final = 2_000
"""Due times that are looked at in one go; a long outage takes several."""


@dataclass(frozen=True)
class Moment:
    """What is true when due times are settled."""

    now_ms: int
    busy: int = 0
    """Runs that have not ended."""
    hold: str | None = None
    """Why nothing may start: `paused`, `error`, `scheduler_paused`."""
    unchanged: bool = False
    over_budget: bool = False


@dataclass
class Fates:
    """What was decided; the due times of `fires` and `runs` have their outcome."""

    fires: list[Waiting] = field(default_factory=list)
    """They start now."""
    runs: list[Streak] = field(default_factory=list)
    """Outcomes without a job, equal neighbours together."""
    waiting: list[Waiting] = field(default_factory=list)
    cancel: bool = False
    """The jobs that have not ended are to be cancelled."""
    accounted_ms: int | None = None
    """The last due time that was looked at."""

    def end(self, due_ms: int, outcome: Outcome, reason: str, after_ms: int | None = None) -> None:
        """A due time ends without a job.

        Args:
            after_ms: the due time just before it; a range has no foreign ones inside.
        """
        last = self.runs[-1] if self.runs else None
        if last is not None and follows(last, after_ms, outcome, reason):
            self.runs[-1] = extend(last, due_ms)
        else:
            self.runs.append(Streak(outcome.value, reason, due_ms, due_ms, 1))


def follows(streak: Streak, after_ms: int | None, outcome: str, reason: str) -> bool:
    """Whether the due time after `after_ms`, which ended so, continues what came before."""
    return streak.to_ms == after_ms and streak.outcome == outcome and streak.reason == reason


def extend(streak: Streak, to_ms: int, count: int = 1) -> Streak:
    return Streak(streak.outcome, streak.reason, streak.from_ms, to_ms, streak.count + count)


def settle(
    spec: Spec,
    waiting: Sequence[Waiting],
    dues: Sequence[int],
    moment: Moment,
    *,
    late: int = 0,
    more: bool = False,
) -> Fates:
    """Decide about due times whose start has come.

    Args:
        waiting: what waits already, in order.
        dues: strictly rising; each should have started by now.
        late: how many of them, from the first on, are late.
        more: there are others behind these, late ones only if all of these are; the
            newest are then left for the next call (`accounted_ms` says how far it came).
    """
    fates = Fates(waiting=list(waiting))
    newest_late = late - 1 if late < len(dues) or not more else len(dues)
    if more:
        dues = dues[: -(spec.catch_up.cap + 1)] or dues[:1]
    started, before_ms = 0, None
    for place, due_ms in enumerate(dues):
        if moment.hold is not None:
            fates.end(due_ms, Outcome.SKIPPED_PAUSED, moment.hold, before_ms)
        elif place < late:
            beyond = late - place > spec.catch_up.cap
            _late(fates, spec, due_ms, moment.now_ms, place == newest_late, beyond, before_ms)
        elif moment.unchanged:
            fates.end(due_ms, Outcome.SKIPPED_UNCHANGED, "unchanged", before_ms)
        elif moment.over_budget:
            fates.end(due_ms, Outcome.SKIPPED_BUDGET, "budget", before_ms)
        else:
            started += _on_time(fates, spec, due_ms, moment.busy + started, before_ms)
        fates.accounted_ms = before_ms = due_ms
    return fates


def _late(
    fates: Fates,
    spec: Spec,
    due_ms: int,
    now_ms: int,
    newest: bool,
    beyond_cap: bool,
    before_ms: int | None,
) -> None:
    policy = spec.catch_up
    if policy.policy == "none":
        fates.end(due_ms, Outcome.MISSED, "no_catch_up", before_ms)
    elif now_ms - due_ms > window_s(spec) * 1000:
        fates.end(due_ms, Outcome.MISSED, "older_than_window", before_ms)
    elif policy.policy == "latest" and not newest:
        fates.end(due_ms, Outcome.COALESCED, "a_later_one_runs", before_ms)
    elif policy.policy == "latest":
        _coalesce(fates, late_only=True)
        fates.waiting.append(Waiting(due_ms, True))
    elif beyond_cap:
        fates.end(due_ms, Outcome.MISSED, "beyond_cap", before_ms)
    else:
        _keep_late(fates, spec, due_ms)


def _keep_late(fates: Fates, spec: Spec, due_ms: int) -> None:
    """It waits to be caught up; never more than the cap, and the newest."""
    waits = [one for one in fates.waiting if one.late]
    for one in waits[: max(0, len(waits) + 1 - spec.catch_up.cap)]:
        fates.waiting.remove(one)
        fates.end(one.due_ms, Outcome.MISSED, "beyond_cap")
    fates.waiting.append(Waiting(due_ms, True))


def _on_time(fates: Fates, spec: Spec, due_ms: int, busy: int, before_ms: int | None) -> bool:
    """Whether it starts."""
    overlap = spec.overlap
    if not busy or overlap == "allow":
        if spec.catch_up.policy == "latest":
            _coalesce(fates, late_only=True)
        fates.fires.append(Waiting(due_ms, False))
        return True
    waits = sum(not one.late for one in fates.waiting)
    if overlap == "skip":
        fates.end(due_ms, Outcome.SKIPPED_OVERLAP, "running", before_ms)
    elif overlap != "cancel_running" and waits >= (1 if overlap == "queue_one" else WAITING_MAX):
        fates.end(due_ms, Outcome.SKIPPED_OVERLAP, "queue_full", before_ms)
    else:
        if overlap == "cancel_running":
            fates.cancel = True
            _coalesce(fates, late_only=False)
        elif spec.catch_up.policy == "latest":
            _coalesce(fates, late_only=True)
        fates.waiting.append(Waiting(due_ms, False))
    return False


def _coalesce(fates: Fates, *, late_only: bool) -> None:
    """What waits is done for by a newer one."""
    for one in [one for one in fates.waiting if one.late or not late_only]:
        fates.waiting.remove(one)
        fates.end(one.due_ms, Outcome.COALESCED, "a_later_one_runs")


def drain(spec: Spec, waiting: Sequence[Waiting], moment: Moment, *, paced: bool) -> Fates:
    """Decide about what waits, the oldest first; at most one starts.

    Args:
        paced: it is the schedule's turn to catch up.
    """
    fates = Fates(waiting=list(waiting))
    if moment.hold is not None or (moment.busy and spec.overlap != "allow"):
        return fates
    for one in waiting:
        if one.late and moment.now_ms - one.due_ms > window_s(spec) * 1000:
            fates.waiting.remove(one)
            fates.end(one.due_ms, Outcome.MISSED, "older_than_window")
        elif one.late and not paced:
            continue
        elif moment.unchanged or moment.over_budget:
            fates.waiting.remove(one)
            if moment.unchanged:
                fates.end(one.due_ms, Outcome.SKIPPED_UNCHANGED, "unchanged")
            else:
                fates.end(one.due_ms, Outcome.SKIPPED_BUDGET, "budget")
        else:
            fates.waiting.remove(one)
            fates.fires.append(one)
            break
    return fates


def drop(waiting: Sequence[Waiting], outcome: Outcome, reason: str) -> Fates:
    """Nothing that waits will run."""
    fates = Fates()
    for one in sorted(waiting, key=lambda one: one.due_ms):
        fates.end(one.due_ms, outcome, reason)
    return fates
