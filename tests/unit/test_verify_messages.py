"""I1, I2, I3, I7, I13 and answers: what the rules about messages see, and what they let pass."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.store.contract import Ack, Intent, Remind, Result, Send
from runtime.verify.history import Written
from runtime.verify.invariants.messages import answers_durable, each_once, in_order, nothing_lost
from runtime.verify.invariants.reminders import reminders_fire_once
from runtime.verify.invariants.turns import turns_whole
from tests.histories import START_MS, A, B, Told, message

MESSAGE_RULES = (nothing_lost, each_once, in_order, answers_durable, turns_whole)


def usual() -> Told:
    """A client, two agents, a dead letter, documents, steps: all as it should be."""
    told = Told()
    told.register()
    told.claim(A)
    told.claim(B)
    told.give("m1", "m2", "m3")
    told.turn(A, acks=("m1",), patch=[["set", [], {"n": 1}]], sends=(Send("to-b", A, B, b"{}"),))
    told.turn(B, acks=("to-b",))
    told.write(A, retries=("m2",))
    letter = f"{A}/m2"
    told.write(A, buries=("m2",), puts=(told_put(letter),))
    told.turn(A, acks=(Ack("m3", b"3"),), patch=[["set", ["n"], 3]])
    told.add("client", "ok", "ask", org="acme", agent=A, msg="m3", value=3)
    told.write(A, intents=(Intent("j", "s", "external", b"ask"),))
    told.write(A, results=(Result("j", "s", b"told"),))
    told.put("n", b"one")
    told.put("n", b"two")
    told.put("gone", b"three")
    told.put("gone", None)
    return told


def told_put(key: str):
    from runtime.store.contract import Put

    return Put("dead_letter", key, "acme", b"{}")


@pytest.mark.parametrize("rule", MESSAGE_RULES)
def test_a_good_history_breaks_no_rule(rule) -> None:
    """A rule that cries wolf would be switched off."""
    assert rule(usual().end()) == []


def final(facts, agent):
    return next(fact for fact in facts if fact.f == "final.agent" and fact.agent == agent).value


def test_a_message_that_is_nowhere_is_lost() -> None:
    """An accepted message that a store forgot would not be missed."""
    facts = usual().end()
    final(facts, A).messages.pop()
    assert ["m3" in one.text for one in nothing_lost(facts)] == [True]


def test_what_a_client_was_told_counts_without_a_commit() -> None:
    """A commit that was answered ok and never made would pass, for the tap has not seen it."""
    told = usual()
    told.add("client", "ok", "send", org="acme", agent=B, msg="never", key="say")
    assert (
        "never for acme/counter:b was accepted and is nowhere" in nothing_lost(told.end())[0].text
    )


def test_a_message_left_in_its_inbox_is_lost() -> None:
    """Work that waits for ever would count as done."""
    told = usual()
    told.give("late")
    assert "still queued" in nothing_lost(told.end())[0].text


def test_a_dead_message_has_its_letter() -> None:
    """Nobody could see or redeliver what was given up."""
    told = usual()
    told.give("m4")
    told.write(A, buries=("m4",))
    assert "without a letter" in nothing_lost(told.end())[0].text


def test_a_message_handled_twice_is_seen() -> None:
    """A state changed twice by one message would pass."""
    told = usual()
    told.turn(A, acks=("m1",))
    assert "handled twice" in each_once(told.end())[0].text


def test_a_message_sent_twice_is_seen() -> None:
    """A turn whose commit was made twice would pass."""
    told = usual()
    told.turn(A, sends=(Send("to-b", A, B, b"{}"),))
    assert "sent twice" in each_once(told.end())[0].text


def test_a_message_that_overtakes_is_seen() -> None:
    """The order of a sender would not be watched."""
    told = usual()
    told.give("m5", "m6")
    told.turn(A, acks=("m6",))
    told.turn(A, acks=("m5",))
    assert "m5 (seq 5) after seq 6" in in_order(told.end())[0].text


def test_other_senders_runs_and_reminders_are_no_part_of_an_order() -> None:
    """What is promised for one sender would be asked of all."""
    told = usual()
    told.give("m5", "run:job_1:2")
    told.give("m6", sender="acme/client:y")
    told.fire("k", START_MS)
    told.turn(A, acks=("run:job_1:2",))
    told.turn(A, acks=(f"reminder:k:{START_MS}",))
    told.turn(A, acks=("m6",))
    told.turn(A, acks=("m5",))
    assert in_order(told.end()) == []


def test_the_scheduler_keeps_the_order_of_one_job_only() -> None:
    """Deciding about jobs side by side would count as a fault, or one job's order for nothing."""
    told = Told()
    scheduler = "system/scheduler:main"
    for number, job in enumerate(("j1", "j2", "j1")):
        told.write(A, sends=(Send(f"m{number}", A, scheduler, message("job.queued", job)),))
    told.scheduler(acks=("m1",))
    told.scheduler(acks=("m0",))
    told.scheduler(acks=("m2",))
    assert in_order(told.end()) == []
    again = Told()
    for number, job in enumerate(("j1", "j1")):
        again.write(A, sends=(Send(f"m{number}", A, scheduler, message("job.queued", job)),))
    again.scheduler(acks=("m1",))
    again.scheduler(acks=("m0",))
    assert len(in_order(again.end())) == 1


def test_a_seq_that_falls_is_seen() -> None:
    """A poll behind its cursor would lose messages."""
    told = usual()
    fact = told.give("m7")
    fact.value = Written(fact.value.commit, (1,), 0)
    assert any("seq 1 was given after" in one.text for one in in_order(told.end()))


def test_an_answer_before_its_commit_is_seen() -> None:
    """A reply that a crash takes back would pass."""
    told = usual()
    told.give("m8")
    told.add("client", "ok", "ask", org="acme", agent=A, msg="m8", value=1)
    told.turn(A, acks=(Ack("m8", b"1"),))
    assert "answered, not handled" in answers_durable(told.end())[0].text


def test_an_answer_that_is_not_the_stored_one_is_seen() -> None:
    """Two askers could be told different things."""
    facts = usual().end()
    next(fact for fact in facts if fact.f == "ask").value = 4
    assert "answered 4, stored is 3" in answers_durable(facts)[0].text


def _status(facts, place, status):
    messages = final(facts, A).messages
    messages[place] = replace(messages[place], status=status)


def _renamed(facts):
    messages = final(facts, A).messages
    messages[0] = replace(messages[0], message_id="strange")


def _event(facts):
    journal = final(facts, A).journal
    journal[1] = replace(journal[1], body=b"{}")


def _document(facts, collection, **changed):
    fact = next(one for one in facts if one.f == "final.put" and one.key == collection)
    fact.value[0] = replace(fact.value[0], **changed)


def _step(facts, result):
    fact = next(one for one in facts if one.f == "final.steps")
    fact.value[0] = replace(fact.value[0], result=result)


def _no_steps(facts):
    next(one for one in facts if one.f == "final.steps").value.clear()


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("m1 of acme/counter:a is pending", lambda facts: _status(facts, 0, "pending")),
        ("came from nowhere", _renamed),
        ("has 1 events, 2 were committed", lambda facts: final(facts, A).journal.pop()),
        ("version 2 is not what was committed", _event),
        ("note/n has revision 9", lambda facts: _document(facts, "note", revision=9)),
        ("note/n has revision 2", lambda facts: _document(facts, "note", body=b"other")),
        ("j s: not what was committed", lambda facts: _step(facts, b"other")),
        ("j s: its result is nowhere", _no_steps),
    ],
)
def test_half_a_turn_is_seen(what, spoil) -> None:
    """A store that tears a commit, or invents, would pass."""
    facts = usual().end()
    spoil(facts)
    assert any(what in one.text for one in turns_whole(facts)), turns_whole(facts)


# Reminders

DUE_MS = START_MS + 1_000


def reminded() -> Told:
    """One reminder set; it fires and is handled in time."""
    told = Told()
    told.register()
    told.claim()
    told.write(A, reminders=(Remind("k", DUE_MS),))
    told.later(1.2)
    told.fire("k", DUE_MS)
    told.turn(A, acks=(f"reminder:k:{DUE_MS}",))
    return told


def ended(told: Told) -> list:
    told.later(60)
    told.register("reader/0", "reader")  # tells the store's time at the end
    return told.end()


def test_a_reminder_in_time_is_fine() -> None:
    """Every reminder would be a violation."""
    assert reminders_fire_once(ended(reminded())) == []


def test_a_reminder_that_never_fires_is_seen() -> None:
    """A timer lost in a restart would not be missed."""
    told = Told()
    told.claim()
    told.write(A, reminders=(Remind("k", DUE_MS),))
    assert "never fired" in reminders_fire_once(ended(told))[0].text


@pytest.mark.parametrize("later", [None, DUE_MS + 500])
def test_a_reminder_that_was_taken_back_need_not_and_must_not_fire(later) -> None:
    """A cancelled or replaced reminder would be missed, or its firing not be noticed."""
    told = Told()
    told.register()
    told.claim()
    told.write(A, reminders=(Remind("k", DUE_MS),))
    told.write(A, reminders=(Remind("k", later),))
    told.give("m1")
    told.later(2)
    if later:
        told.fire("k", later)
    assert reminders_fire_once(ended(told)) == []
    told.fire("k", DUE_MS)
    told.facts = [fact for fact in told.facts if not fact.f.startswith("final")]
    assert "after its cancellation" in reminders_fire_once(ended(told))[0].text


def test_a_reminder_too_early_is_seen() -> None:
    """A timer that fires before its time would pass, whatever time the store says it was."""
    told = Told()
    told.register()
    told.claim()
    told.write(A, reminders=(Remind("k", DUE_MS),))
    told.fire("k", DUE_MS)
    found = reminders_fire_once(ended(told))
    assert "fired 1000 ms early" in found[0].text
    told = reminded()
    told.facts[-1].t_ms = DUE_MS - 300
    assert "was handled 300 ms early" in reminders_fire_once(ended(told))[0].text


def test_a_step_of_the_stores_clock_excuses_an_early_reminder() -> None:
    """A clock that an operator sets would look like a fault."""
    told = reminded()
    told.facts[-1].t_ms = DUE_MS - 300
    told.facts.insert(-1, told.facts[-1].__class__(
        told.facts[-1].i, told.now_ms, "nemesis", "info", "clock_step", key="store", value=5.0
    ))  # fmt: skip
    assert reminders_fire_once(ended(told)) == []


def test_a_reminder_nobody_set_is_seen() -> None:
    """A store that makes reminders up would pass."""
    told = reminded()
    told.fire("other", DUE_MS)
    assert "was never set" in reminders_fire_once(ended(told))[0].text
