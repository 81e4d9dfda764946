"""Planted in queue and runs: limits, pauses, order, steps, ends, signals, money."""

from __future__ import annotations

from dataclasses import replace as replaced
from typing import Any

from msgspec.structs import replace

from runtime.client import Client
from runtime.job import Priority
from runtime.jobs import decisions
from runtime.jobs import table as jobtable
from runtime.jobs.decisions import Decision
from runtime.jobs.desk import JobDesk
from runtime.jobs.dispatcher import Dispatcher
from runtime.jobs.lane import JobLane
from runtime.jobs.run import JobRun
from runtime.jobs.seat import Seat
from runtime.jobs.table import JobTable
from runtime.jobs.work import JobWork
from runtime.jobs.writer import JobWriter
from runtime.schedule.queue import JobQueue, Limits
from runtime.scheduler import Scheduler
from runtime.store import rules
from runtime.verify.bugs.bug import Bug, Plant


def _limits(**more: int) -> Any:
    """A queue that counts on other limits than it was given."""

    def make(init: Any) -> Any:
        def initializing(self: JobQueue, limits: Limits) -> None:
            wider = {name: getattr(limits, name) + extra for name, extra in more.items()}
            init(self, replaced(limits, **wider))

        return initializing

    return make


def _ignores_pause(starts: Any) -> Any:
    async def starting(self: Dispatcher) -> Any:
        controls = self._controls
        asked, controls.asked = controls.asked, type(controls.asked)()
        try:
            return await starts(self)
        finally:
            controls.asked = asked

    return starting


def _forgets_pause(rebuild: Any) -> Any:
    async def rebuilding(self: Scheduler) -> None:
        await rebuild(self)
        self._controls.asked = type(self._controls.asked)()

    return rebuilding


def _first_come(place_of: Any) -> Any:
    return lambda job: place_of(replace(job, priority=Priority.NORMAL))


def _without_letter(end: Any) -> Any:
    def ending(*arguments: Any) -> Decision:
        decision: Decision = end(*arguments)
        decision.puts = [put for put in decision.puts if put.collection == "job"]
        return decision

    return ending


def _starts_in_two(commit: Any) -> Any:
    async def committing(self: Seat, decision: Decision, acks: Any = ()) -> Any:
        starts = any(send.message_id.startswith("run:") for send in decision.sends)
        if not starts:
            return await commit(self, decision, acks)
        refused = await commit(self, Decision(puts=decision.puts), acks)
        return refused or await commit(self, Decision(sends=decision.sends, feed=decision.feed))

    return committing


def _ends_in_two(commit: Any) -> Any:
    async def committing(self: JobRun, end: Any = None, **fields: Any) -> None:
        if end is not None:
            await commit(self, end=end)
        await commit(self, end=end, **fields)

    return committing


def _runs_from_nothing(load: Any) -> Any:
    async def loading(cls: Any, activation: Any, stored: Any, message: Any) -> JobRun:
        run: JobRun = await load(activation, stored, message)
        run._steps = {}
        return run

    return classmethod(loading)


def _hears_no_cancel(load: Any) -> Any:
    async def loading(cls: Any, activation: Any, stored: Any, message: Any) -> JobRun:
        run: JobRun = await load(activation, stored, message)
        run._asked = None
        return run

    return classmethod(loading)


def _deaf_to_cancels(tell: Any) -> Any:
    def telling(self: JobLane, message: Any) -> None:
        if message.message_type != "job.cancel":
            tell(self, message)

    return telling


def _wakes_nobody(signal: Any) -> Any:
    def signalling(self: JobLane, stored: Any, message: Any) -> dict[str, Any]:
        found: dict[str, Any] = {**signal(self, stored, message), "sends": ()}
        return found

    return signalling


def _deaf_to_signals(control: Any) -> Any:
    def controlling(self: JobRun, message_type: str) -> None:
        if message_type != "job.signal":
            control(self, message_type)

    return controlling


def _waits_anyway(_: Any) -> Any:
    return lambda self: ()


def _calls_without_intent(commit: Any) -> Any:
    async def committing(self: JobRun, **fields: Any) -> None:
        if set(fields) != {"intents"}:
            await commit(self, **fields)

    return committing


def _spends_twice(spend: Any) -> Any:
    def spending(self: JobRun, cost_usd: float, tokens: int) -> None:
        spend(self, 2 * cost_usd, tokens)

    return spending


def _goes_by_the_message(_: Any) -> Any:
    """What was done about the job before its end was read is not looked at."""

    def moved_on(self: JobDesk, job: Any, revision: int) -> Decision:
        self._jobs.wait_until(job.id, None)
        return Decision()

    return moved_on


def _pausing_counts(paused: Any) -> Any:
    def pausing(self: JobDesk, job: Any, revision: int, **changed: Any) -> Decision:
        changed.pop("attempts", None)
        decision: Decision = paused(self, job, revision, **changed)
        return decision

    return pausing


def _sees_everything(_: Any) -> Any:
    async def get(self: Client, collection: str, key: str) -> Any:
        return await self.store.get(collection, key)

    return get


def _notices_nothing(_: Any) -> Any:
    async def keeping(self: Seat) -> None:
        return None

    return keeping


STEP_CONFLICTS = Plant(rules, "_steps", lambda _: lambda commit, view: None)

BUGS = (
    Bug("limit off by one", (Plant(JobQueue, "__init__", _limits(total=1)),)),
    Bug("organization's limit off by one", (Plant(JobQueue, "__init__", _limits(organization=1)),)),
    Bug("agent's limit off by one", (Plant(JobQueue, "__init__", _limits(agent=1)),)),
    Bug("pause ignored", (Plant(Dispatcher, "_starts", _ignores_pause),)),
    Bug("held agents get jobs", (Plant(JobTable, "hold", lambda _: lambda *_: None),)),
    Bug("pause forgotten at a restart", (Plant(Scheduler, "_rebuild", _forgets_pause),)),
    Bug("priority ignored", (Plant(jobtable, "place_of", _first_come),)),
    Bug("failed job leaves no letter", (Plant(decisions, "end", _without_letter),)),
    Bug("start in two commits", (Plant(Seat, "write", _starts_in_two),)),
    Bug("end in two commits", (Plant(JobWriter, "_commit_now", _ends_in_two),)),
    Bug("recorded results ignored", (Plant(JobRun, "load", _runs_from_nothing), STEP_CONFLICTS)),
    Bug("cancel forgotten",
        (Plant(JobRun, "load", _hears_no_cancel), Plant(JobLane, "_tell", _deaf_to_cancels))),
    Bug("signal wakes nobody", (Plant(JobLane, "_signal", _wakes_nobody),)),
    Bug("signal overtaken by a wait",
        (Plant(JobRun, "control", _deaf_to_signals),
         Plant(JobRun, "_still_missed", _waits_anyway))),
    Bug("called without an intent", (Plant(JobWriter, "_commit", _calls_without_intent),)),
    Bug("money counted twice", (Plant(JobWork, "spend", _spends_twice),)),
    Bug("late word believed", (Plant(JobDesk, "_moved_on", _goes_by_the_message),)),
    Bug("pausing counts as an attempt", (Plant(JobDesk, "_paused", _pausing_counts),)),
    Bug("others' documents shown", (Plant(Client, "get", _sees_everything),)),
    Bug("scheduler does not notice its loss", (Plant(Seat, "keep", _notices_nothing),)),
)  # fmt: skip
