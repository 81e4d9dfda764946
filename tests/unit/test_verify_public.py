"""I8, I12, I14, I15, I17, I20, I21, I22 and units: what clients, schedules and reviews are owed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.store.contract import Intent, Result
from runtime.verify.history import Call
from runtime.verify.invariants.plans import (
    budgets_kept,
    costs_recorded,
    effects_approved,
    no_orphans,
    occurrences_accounted,
)
from runtime.verify.invariants.public import (
    feed_dense,
    idempotency_keys_kept,
    organizations_apart,
    own_writes_read,
    units_conserved,
)
from tests.histories import INCARNATION, Told

HASH = "ab" * 32


def texts(rule, told: Told) -> str:
    return " | ".join(one.text for one in rule(told.end()))


# The feed


def fed() -> Told:
    """Two events of acme around one of beta; a subscriber of acme reads, and comes back."""
    told = Told()
    told.add("world", "info", "incarnation", key=INCARNATION)
    told.publish("1")
    told.publish("2", organization="beta")
    told.tail(0, 1, cursor=2)
    told.publish("3")
    told.tail(2, 3)
    return told


def test_a_feed_without_gaps_is_fine() -> None:
    """A rule that cries wolf would be switched off."""
    assert feed_dense(fed().end()) == []


@pytest.mark.parametrize(
    ("what", "tail"),
    [
        ("not (4,)", lambda told: told.tail(3, cursor=4)),
        ("got (3, 4)", lambda told: told.tail(3, 3, 4)),
        ("asked from 2, it was at 3", lambda told: told.tail(2, 3, 4)),
        ("seen before its commit", lambda told: told.tail(3, 4, 5)),
        ("start over for nothing", lambda told: told.tail(3, 1, 3, 4, reset=True)),
    ],
)
def test_a_subscriber_that_is_told_wrong_is_seen(what, tail) -> None:
    """A client could miss an event, or be told of what never was."""
    told = fed()
    told.publish("4")
    tail(told)
    assert what in texts(feed_dense, told)


def test_an_event_seen_before_its_commit_is_seen() -> None:
    """What a crash takes back would have been published."""
    told = fed()
    told.tail(3, 4)
    told.publish("4")
    assert "cursor 4 was seen before its commit" in texts(feed_dense, told)


def test_another_incarnation_resets_and_only_that() -> None:
    """A cursor of a lost past would be believed."""
    told = fed()
    told.add("world", "info", "incarnation", key="second")
    told.tail(3, 1, 3, reset=True)
    assert feed_dense(told.end()) == []
    told = fed()
    told.add("world", "info", "incarnation", key="second")
    told.tail(3)
    assert "was not told that the incarnation is another" in texts(feed_dense, told)


def test_a_feed_that_is_not_the_commits_is_seen() -> None:
    """An event could be published that was refused, or one be left out."""
    for spoil, what in (
        (lambda entries: entries.pop(), "2 events are in the feed, 3 were committed"),
        (lambda entries: entries.pop(0), "the feed's cursors are not dense"),
        (lambda entries: entries.__setitem__(1, replace(entries[1], body=b"x")), "cursor 2 is not"),
    ):
        facts = fed().end()
        spoil(next(fact for fact in facts if fact.f == "final.feed").value)
        assert any(what in one.text for one in feed_dense(facts)), what


# Organizations, keys, own writes


def test_a_canary_elsewhere_is_seen() -> None:
    """Tenants could see each other."""
    told = Told()
    told.put("n", b"canary-acme")
    told.give("m1")
    told.add("c", "ok", "look", org="acme", key="note", value=["canary-acme"])
    told.add("c", "fail", "cross", org="acme", key="document")
    assert organizations_apart(told.end()) == []
    told.add("c", "ok", "look", org="acme", key="note", value=["canary-acme", "canary-beta"])
    told.add("c", "ok", "cross", org="acme", key="document")
    told.give("m2", to="beta/counter:a", sender="acme/client:x")
    told.put("o", b"canary-beta")
    found = texts(organizations_apart, told)
    assert "acme was shown ['canary-beta']" in found
    assert "acme reached another by document" in found
    assert "m2 goes between" in found
    assert "o of {'acme'} carries {'beta'}" in found


def test_one_key_with_two_results_is_seen() -> None:
    """A repeated request could be done twice."""
    told = Told()
    for type, value in (("ok", {"body": "a", "result": "1"}), ("ok", {"body": "a", "result": "1"})):
        told.add("c", type, "submit", key="k", value=value)
    told.add("c", "fail", "submit", key="k", value={"body": "b"})
    assert idempotency_keys_kept(told.facts) == []
    told.add("c", "ok", "submit", key="k", value={"body": "b", "result": "2"})
    assert len(idempotency_keys_kept(told.facts)) == 1


def test_a_write_that_is_not_read_back_is_seen() -> None:
    """A client could be shown the past, and what it had deleted."""
    told = Told()
    told.add("c", "ok", "read", key="k", value=None)
    told.add("c", "ok", "write", key="k", value="1")
    told.add("c", "info", "write", key="k", value="2")
    told.add("c", "ok", "write", key="k", value="2")
    told.add("c", "ok", "read", key="k", value="2")
    assert own_writes_read(told.facts) == []
    told.add("c", "ok", "write", key="k", value=None)
    told.add("c", "ok", "read", key="k", value="2")
    assert "k reads '2'" in own_writes_read(told.facts)[0].text


def accounts(first: int, second: int, opened: int = 1) -> Told:
    told = Told()
    for name, units in (("a", first), ("b", second)):
        agent = f"acme/account:{name}"
        told.turn(agent, patch=[["set", [], {"units": units, "opened": opened}]])
    return told


def test_units_that_appear_or_vanish_are_seen() -> None:
    """A lost or doubled effect between two agents would pass."""
    assert units_conserved(accounts(130, 70).end()) == []
    assert "30 units of acme came from nowhere" in texts(units_conserved, accounts(130, 100))
    assert "-5 units of acme" in texts(units_conserved, accounts(95, 100))
    assert "has -1 units" in texts(units_conserved, accounts(-1, 201))
    assert "was initialized 2 times" in texts(units_conserved, accounts(100, 100, opened=2))


# Schedules


def scheduled(*occurrences: dict) -> list:
    told = Told()
    told.add("test", "info", "due", key="s", value=[10, 20, 30, 40])
    for one in occurrences:
        told.add("ledger", "ok", "occurrence", key="s", value=one)
    return occurrences_accounted(told.facts)


LATE = {"fromMs": 25, "toMs": 40, "outcome": "missed"}


def test_every_due_time_has_one_outcome() -> None:
    """A tick could vanish in an outage, or fire twice."""
    first, second = {"dueMs": 10, "outcome": "fired"}, {"dueMs": 20, "outcome": "coalesced"}
    assert scheduled(first, second, LATE) == []
    assert "s at 20 has 0 outcomes" in scheduled(first, LATE)[0].text
    assert "s at 10 has 2 outcomes" in scheduled(first, first, second, LATE)[0].text
    strange = {"dueMs": 15, "outcome": "fired"}
    assert "was not due at 15" in scheduled(first, second, LATE, strange)[0].text
    short = {**LATE, "count": 3}
    assert "s tells of 3, 2 were due" in scheduled(first, second, short)[0].text
    assert "s: forgotten" in scheduled({"dueMs": 10, "outcome": "forgotten"}, second, LATE)[0].text


# Reviews, orphans, money


def reviewed(**changed) -> Told:
    told = Told()
    value = {"by": "ann", "author": "code:1", "role": "operator", "untilMs": told.now_ms + 1_000}
    told.add("ann", "ok", "approval", org="acme", key=HASH, value=value | changed)
    return told


def test_an_effect_needs_an_approval_of_its_own() -> None:
    """A change could be delivered that nobody has approved."""
    told = reviewed()
    told.add("git", "ok", "effect", org="acme", key=HASH)
    assert effects_approved(told.facts) == []
    told.add("git", "ok", "effect", org="acme", key=HASH)
    assert len(effects_approved(told.facts)) == 1, "it was used"


@pytest.mark.parametrize(
    "bad", ["author", "role", "expired", "revoked", "organization", "other hash", "later"]
)
def test_an_approval_that_does_not_count_is_seen(bad) -> None:
    """Each way around the gate would be one that the checker allows."""
    effect = {"org": "acme", "key": HASH}
    told = Told() if bad == "later" else reviewed()
    match bad:
        case "author":
            told = reviewed(by="code:1")
        case "role":
            told = reviewed(role="viewer")
        case "expired":
            told.later(2)
        case "revoked":
            told.add("ann", "ok", "revoked", org="acme", key=HASH)
        case "organization":
            effect["org"] = "beta"
        case "other hash":
            effect["key"] = "cd" * 32
    told.add("git", "ok", "effect", **effect)
    if bad == "later":
        told.facts += reviewed().facts
    assert len(effects_approved(told.facts)) == 1


def test_what_outlives_its_owner_is_seen() -> None:
    """A killed host's commands could work on."""
    told = Told()
    told.add("scan", "ok", "sandbox", key="host-1", value=[7])
    told.add("nemesis", "info", "kill", key="host-1")
    told.later(1.9)
    told.add("scan", "ok", "sandbox", key="host-1", value=[7])
    told.later(0.2)
    told.add("scan", "ok", "sandbox", key="host-1", value=[])
    assert no_orphans(told.facts) == []
    told.add("scan", "ok", "sandbox", key="host-1", value=[7])
    assert "[7] of host-1 live 2100 ms after it" in no_orphans(told.facts)[0].text


def test_a_call_beyond_the_budget_is_seen() -> None:
    """A limit on money would be a wish."""
    told = Told()
    told.add("test", "info", "budget", key="j", value=1.0)
    for dollars in (0.6, 0.6):
        told.add("model", "invoke", "charge", key="j", value=dollars)
    assert budgets_kept(told.facts) == []
    told.add("model", "invoke", "charge", key="j", value=0.1)
    assert "j spends on at 1.2 of 1.0" in budgets_kept(told.facts)[0].text


def cost(recorded: float, calls: int = 2) -> list:
    """A job of one step that was called so often, each for a quarter."""
    told = Told()
    told.claim("acme/worker:job_1")
    for _ in range(calls):
        told.add("host-1", "ok", "call", key="job_1:s", value=Call("s", "pure", "r", "1", 0.25))
    told.write(
        "acme/worker:job_1",
        intents=(Intent("job_1", "s", "pure", b"null"),),
        results=(Result("job_1", "s", b'"1"'),),
        puts=(told.job(status="completed", cost_usd=recorded),),
    )
    return costs_recorded(told.facts)


def test_a_cost_that_is_not_what_the_calls_cost_is_seen() -> None:
    """Money could be counted twice, or not at all."""
    assert cost(0.25) == [], "one call was not recorded"
    assert cost(0.5) == []
    assert "job_1 says 0.75, its steps cost 0.25..0.5" in cost(0.75)[0].text
    assert "job_1 says 0.0" in cost(0.0)[0].text


def test_the_record_of_a_job_without_calls_costs_nothing() -> None:
    """A job that has not begun would be a violation."""
    told = Told()
    told.put("x", b"{}")
    told.write("acme/boss:0", puts=(told.job(),))
    assert costs_recorded(told.facts) == []
