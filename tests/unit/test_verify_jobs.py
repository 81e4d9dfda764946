"""I9, I10, I11, I16, I18, I19 and cancels: what the rules about jobs see."""

from __future__ import annotations

import json

import pytest

from runtime.ids import SCHEDULER
from runtime.jobs.holds import HOLDS
from runtime.store.contract import Intent, Put, Result, Retry, Send
from runtime.verify.history import Call
from runtime.verify.invariants.jobs import (
    cancelled_stays_cancelled,
    everything_ends,
    paused_stay_paused,
    within_limits,
)
from runtime.verify.invariants.plans import queue_in_order
from runtime.verify.invariants.retries import retries_bounded
from runtime.verify.invariants.steps import steps_recorded_once
from tests.histories import A, Told, message

RULES = (
    within_limits, paused_stay_paused, steps_recorded_once, retries_bounded, everything_ends,
    cancelled_stays_cancelled, queue_in_order,
)  # fmt: skip
WORKER = "acme/worker:job_1"
RUN = "host-1/1/1"


def opened() -> Told:
    told = Told()
    told.add("world", "info", "limits", value={"total": 2, "organization": 1})
    told.claim(SCHEDULER, "scheduler/1", "scheduler")
    return told


def queued(told: Told, id: str = "job_1", organization: str = "acme", **fields) -> None:
    """A boss enqueues a job, and the scheduler takes it."""
    boss = f"{organization}/boss:0"
    word = Send(f"queued:{id}", boss, SCHEDULER, message("job.queued", id))
    told.write(boss, "host-1", sends=(word,), puts=(told.job(id, organization, **fields),))
    told.scheduler(acks=(f"queued:{id}",))


def run_of(told: Told, id: str = "job_1", organization: str = "acme") -> str:
    agent = told.agents[f"{organization}/worker:{id}"]
    return [one for one in agent.messages if one.startswith("run:")][-1]


def called(told: Told, step: str, result: str = "r", kind: str = "external", **more) -> None:
    """The outside is called by the run, and answers."""
    proc, run = more.get("proc", "host-1"), more.get("run", RUN)
    for type, value in (("invoke", ""), ("ok", result)):
        told.add(proc, type, "call", key=f"job_1:{step}", value=Call(step, kind, run, value, 0.0))


def stepped(told: Told, step: str, result: str = "r", **more) -> None:
    """Intent, call, result."""
    told.write(WORKER, intents=(Intent("job_1", step, "external", b"null"),))
    called(told, step, result, **more)
    told.write(WORKER, results=(Result("job_1", step, json.dumps(result).encode()),))


def ended(told: Told, id: str = "job_1", organization: str = "acme", **fields) -> None:
    """The host writes the end of a run."""
    put = told.job(id, organization, attempts=1, **fields)
    agent = f"{organization}/worker:{id}"
    told.write(agent, acks=(run_of(told, id, organization),), puts=(put,))


def usual() -> Told:
    """One job from the queue to its end, in two steps; then the trouble is over."""
    told = opened()
    queued(told)
    told.start()
    told.claim(WORKER)
    told.add("host-1", "invoke", "run", key="job_1", value=RUN)
    stepped(told, "a", "1")
    stepped(told, "b", "2")
    result = {"outcome": "finished", "summary": "", "data": {"a": "1", "b": "2"}}
    ended(told, status="completed", result=result)
    told.add("nemesis", "info", "calm")
    told.add("world", "ok", "drained")
    return told


@pytest.mark.parametrize("rule", RULES)
def test_a_good_history_breaks_no_rule(rule) -> None:
    """A rule that cries wolf would be switched off."""
    assert rule(usual().end()) == []


def texts(rule, told: Told) -> str:
    return " | ".join(one.text for one in rule(told.end()))


# Limits and pauses


def test_one_job_too_many_is_seen() -> None:
    """The limits would be a wish."""
    told = opened()
    for id, organization in (("j1", "acme"), ("j2", "beta"), ("j3", "gamma")):
        told.start(id, organization)
    assert texts(within_limits, told) == "3 jobs run at once"
    told = opened()
    told.start("j1")
    told.start("j2")
    assert texts(within_limits, told) == "2 jobs of acme run at once"


def test_a_run_that_has_ended_holds_no_slot() -> None:
    """Jobs one after the other would look like jobs at once."""
    told = opened()
    told.start("j1")
    ended(told, "j1", status="completed")
    told.start("j2")
    assert within_limits(told.end()) == []


def paused(told: Told, yes: bool) -> None:
    body = json.dumps({"paused": yes}).encode()
    told.scheduler(puts=(Put("scheduler", "control", "system", body),))


def test_a_start_while_paused_is_seen() -> None:
    """A pause of the scheduler would be a word."""
    told = opened()
    paused(told, True)
    told.start("j1")
    paused(told, False)
    told.start("j2", "beta")
    assert texts(paused_stay_paused, told) == "j1 started: paused"


@pytest.mark.parametrize(
    ("before", "after", "by", "fine"),
    [
        ("paused", "running", "scheduler", False),
        ("paused", "pending", "scheduler", True),
        ("completed", "running", "scheduler", False),
        ("failed", "pending", "scheduler", True),
        ("cancelled", "pending", "scheduler", False),
        ("running", "completed", "host", True),
        ("completed", "completed", "host", False),
        ("pending", "completed", "host", False),
        ("running", "failed", "host", False),
    ],
)
def test_a_job_moves_only_as_it_may(before, after, by, fine) -> None:
    """A job that was paused, or has ended, would run again unseen."""
    told = opened()
    told.write("acme/boss:0", puts=(told.job(status=before),))
    put = told.job(status=after)
    if by == "scheduler":
        told.scheduler(puts=(put,))
    else:
        told.write(WORKER, puts=(put,))
    assert (paused_stay_paused(told.end()) == []) is fine


# Steps


def test_a_step_begun_or_recorded_again_is_seen() -> None:
    """A recorded result could be replaced."""
    told = usual()
    stepped(told, "a", "1")
    found = texts(steps_recorded_once, told)
    assert "job_1 a was begun after its result was recorded" in found
    assert "job_1 a was recorded twice" in found


def test_a_recorded_step_called_by_a_later_run_is_seen() -> None:
    """A resumed job could repeat what it has paid for."""
    told = usual()
    told.claim(WORKER, "host-2/01", "host-2")
    called(told, "a", kind="pure", proc="host-2", run="host-2/1/1")
    assert "called after its result was recorded" in texts(steps_recorded_once, told)


def test_the_same_host_knows_what_its_earlier_run_has_recorded() -> None:
    """A second attempt in one activation could repeat the first one's steps."""
    told = usual()
    told.add("host-1", "invoke", "run", key="job_1", value="host-1/1/2")
    called(told, "a", kind="pure", run="host-1/1/2")
    assert "called after its result was recorded" in texts(steps_recorded_once, told)


def test_a_zombies_pure_step_is_no_violation() -> None:
    """What a paused process has begun would be blamed on the one that went on."""
    told = opened()
    told.claim(WORKER)
    told.add("host-1", "invoke", "run", key="job_1", value=RUN)
    told.claim(WORKER, "host-2/01", "host-2")
    told.add("host-2", "invoke", "run", key="job_1", value="host-2/1/1")
    intent = Intent("job_1", "a", "pure", b"null")
    called(told, "a", "1", kind="pure", proc="host-2", run="host-2/1/1")
    told.write(WORKER, "host-2", intents=(intent,), results=(Result("job_1", "a", b'"1"'),))
    called(told, "a", "1", kind="pure")
    assert steps_recorded_once(told.end()) == []


def test_a_call_without_an_intent_is_seen() -> None:
    """A call could be made that nobody could ask about after a crash."""
    told = usual()
    called(told, "c")
    assert "called by host-1 without an intent" in texts(steps_recorded_once, told)


def test_each_call_needs_an_intent_of_its_own() -> None:
    """A step could be called twice by one run."""
    told = usual()
    told.write(WORKER, intents=(Intent("job_1", "c", "external", b"null"),))
    called(told, "c")
    called(told, "c")
    assert texts(steps_recorded_once, told).count("without an intent") == 1


def test_a_call_before_the_earlier_result_is_recorded_is_seen() -> None:
    """A crash would forget a result on which the next call already rests."""
    told = usual()
    for step in ("c", "d"):
        told.write(WORKER, intents=(Intent("job_1", step, "external", b"null"),))
        called(told, step)
    assert "while [('job_1', 'c')] are not recorded" in texts(steps_recorded_once, told)


def test_a_result_nobody_gave_is_seen() -> None:
    """A result could be recorded for another step."""
    told = usual()
    told.write(WORKER, intents=(Intent("job_1", "c", "external", b"null"),))
    called(told, "c", "3")
    told.write(WORKER, results=(Result("job_1", "c", b'"4"'),))
    assert "which the outside never said" in texts(steps_recorded_once, told)


def test_an_answer_that_is_not_the_record_is_seen() -> None:
    """A job could report what is not in its journal."""
    told = usual()
    result = {"outcome": "finished", "summary": "", "data": {"a": "9"}}
    told.write(WORKER, puts=(told.job(status="completed", result=result),))
    assert "job_1 answers a='9'" in texts(steps_recorded_once, told)


# Retries


def test_a_message_tried_too_often_too_early_or_too_late_is_seen() -> None:
    """Backoff and dead letters would not be watched."""
    told = opened()
    told.give("m1")
    for _ in range(5):
        told.write(A, retries=(Retry("m1", told.now_ms, "no"),))
        told.later(1)
    assert "has failed 5 times" in texts(retries_bounded, told)
    told = opened()
    told.give("m1")
    told.write(A, retries=(Retry("m1", told.now_ms + 900, "no"),))
    told.later(0.9)
    told.write(A, retries=(Retry("m1", told.now_ms + 1_900, "no"),))
    told.later(1.9)
    told.write(A, buries=("m1",))
    assert retries_bounded(told.end()) == []
    told = opened()
    told.give("m1")
    told.write(A, retries=(Retry("m1", told.now_ms + 9_000, "no"),))
    told.write(A, acks=("m1",))
    found = texts(retries_bounded, told)
    assert "m1 waits 9000 ms" in found
    assert "tried 9000 ms early" in found


def test_a_repeated_commit_of_one_failure_is_one_failure() -> None:
    """A lost answer would look like a try too many."""
    told = opened()
    told.give("m1")
    for _ in range(9):
        told.write(A, retries=(Retry("m1", told.now_ms + 500, "no"),))
    assert retries_bounded(told.end()) == []


def failed(told: Told, attempt: int) -> None:
    """An attempt fails and is put off."""
    told.start(attempts=attempt)
    told.write(WORKER, acks=(run_of(told),), puts=(told.job(status="running", attempts=attempt),))
    wait_ms = told.now_ms + 500
    told.scheduler(puts=(told.job(status="pending", attempts=attempt, not_before_ms=wait_ms),))
    told.later(0.5)


def test_attempts_are_counted() -> None:
    """A job could be tried without end, or given up too soon."""
    told = opened()
    failed(told, 1)
    failed(told, 2)
    assert retries_bounded(told.end()) == []
    failed(told, 2)
    assert "starts attempt 2 after 2 failures" in texts(retries_bounded, told)
    told = opened()
    told.start(attempts=5)
    assert "job_1 is at attempt 5" in texts(retries_bounded, told)


def test_waiting_and_pausing_is_no_attempt() -> None:
    """A job that a person pauses would be given up at its first failure."""
    told = opened()
    for status in ("waiting", "paused"):
        told.start(attempts=1)
        ended(told, status=status)
        told.scheduler(puts=(told.job(status="pending", attempts=0),))
    assert retries_bounded(told.end()) == []
    told.start(attempts=2)
    assert "starts attempt 2 after 0 failures" in texts(retries_bounded, told)


def test_a_job_that_failed_has_a_letter() -> None:
    """A failed job could vanish from every list."""
    told = opened()
    told.start()
    put = told.job(status="failed", attempts=1)
    told.scheduler(puts=(put, Put("dead_letter", "job/job_1", "acme", b"{}")))
    assert retries_bounded(told.end()) == []
    told = opened()
    told.start()
    told.scheduler(puts=(put,))
    assert "failed without a dead letter" in texts(retries_bounded, told)


# Liveness and cancels


def test_what_does_not_drain_is_seen() -> None:
    """A job that nobody runs would wait unseen."""
    told = usual()
    told.facts = [fact for fact in told.facts if fact.f != "drained"]
    queued(told, "job_2")
    told.start("job_2")
    found = texts(everything_ends, told)
    assert "it did not drain" in found
    assert "job_2 is running at the end" in found


def cancelled() -> Told:
    """A job runs, and its cancel is accepted."""
    told = opened()
    told.start()
    told.claim(WORKER)
    word = Send("cancel:1", SCHEDULER, WORKER, message("job.cancel", "job_1"))
    asked = Put("asked", "job_1", "acme", b"cancel")
    told.scheduler(sends=(word,), puts=(asked,))
    return told


def step(told: Told, key: str, proc: str = "host-1") -> None:
    told.write(WORKER, proc, intents=(Intent("job_1", key, "external", b"null"),))


def test_a_cancel_that_a_later_run_ignores_is_seen() -> None:
    """A cancel that only a dead host had heard would be forgotten."""
    told = cancelled()
    told.claim(WORKER, "host-2/01", "host-2")
    step(told, "a", "host-2")
    assert "goes on, it was cancelled" in texts(cancelled_stays_cancelled, told)


def test_a_cancel_that_its_host_ignores_is_seen() -> None:
    """A host could acknowledge a cancel and work on."""
    told = cancelled()
    step(told, "before")
    told.write(WORKER, acks=("cancel:1",))
    step(told, "on its way")
    assert cancelled_stays_cancelled(told.end()) == []
    told.facts = [fact for fact in told.facts if not fact.f.startswith("final")]
    step(told, "after")
    assert "host has heard" in texts(cancelled_stays_cancelled, told)


def test_a_job_that_is_retried_is_cancelled_no_more() -> None:
    """A retry would be blamed for the cancel before it."""
    told = cancelled()
    told.write(WORKER, acks=("cancel:1",))
    told.scheduler(puts=(Put("asked", "job_1", "acme", None),))
    for key in ("a", "b", "c"):
        step(told, key)
    assert cancelled_stays_cancelled(told.end()) == []


# The queue


def test_a_more_urgent_job_passed_over_is_seen() -> None:
    """Priority and age would be a wish."""
    told = opened()
    queued(told, "low", priority="low")
    told.now_ms += 1
    queued(told, "urgent", priority="critical")
    told.start("low")
    told.scheduler(acks=())
    queued(told, "other")
    assert "low started before urgent" in texts(queue_in_order, told)


def test_a_job_whose_own_agent_is_held_may_be_passed_over() -> None:
    """Who pauses an agent would make the queue look out of order."""
    told = opened()
    queued(told, "urgent", priority="critical")
    queued(told, "first", priority="low")
    queued(told, "second", priority="low")
    told.scheduler(puts=(Put(HOLDS, "acme/worker:urgent", "acme", b'{"held":true}'),))
    told.start("first")
    told.scheduler(acks=())
    queued(told, "other")
    assert queue_in_order(told.end()) == []
    told.scheduler(puts=(Put(HOLDS, "acme/worker:urgent", "acme", None),))
    told.start("second")
    queued(told, "another")
    assert texts(queue_in_order, told) == "second started before urgent, which comes first"


def test_one_round_starts_in_any_order_and_a_cut_one_is_not_judged() -> None:
    """What is written side by side, or cut off by a kill, would look out of order."""
    told = opened()
    queued(told, "low", priority="low")
    queued(told, "urgent", priority="critical")
    told.start("low")
    told.start("urgent")
    queued(told, "other")
    assert queue_in_order(told.end()) == []
    told = opened()
    queued(told, "low", priority="low")
    queued(told, "urgent", priority="critical")
    told.start("low")
    told.claim(SCHEDULER, "scheduler/2", "scheduler")
    queued(told, "other")
    assert queue_in_order(told.end()) == []
