"""I4, I5, I6: fences, versions and replay, as a history shows them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.store.contract import Snapshot
from runtime.verify.invariants.agents import fenced, replayed, versions_dense
from tests.histories import INCARNATION, A, Told


def usual() -> Told:
    """An agent moves from one host to another, whose lease the first had let lapse."""
    told = Told()
    told.add("world", "info", "incarnation", key=INCARNATION)
    told.register("host-1/01", "host-1", lease_s=3.0)
    told.register("host-2/01", "host-2", lease_s=30.0)
    told.claim(A)
    told.turn(A, patch=[["set", [], {"n": 1}]])
    told.turn(A, patch=[["set", ["n"], 2]], snapshot=Snapshot(b'{"n":2}'))
    told.later(4)
    told.claim(A, "host-2/01", "host-2")
    told.turn(A, "host-2", patch=[["set", ["list"], [1]]])
    told.turn(A, "host-2", patch=[["add", ["list"], [2]]])
    return told


@pytest.mark.parametrize("rule", [fenced, versions_dense, replayed])
def test_a_good_history_breaks_no_rule(rule) -> None:
    """A rule that cries wolf would be switched off."""
    assert rule(usual().end()) == []


def texts(found) -> str:
    return " | ".join(one.text for one in found)


def test_a_stale_epoch_that_was_accepted_is_seen() -> None:
    """A paused twin could write, and the history would look well."""
    told = usual()
    told.write(A, "host-1", epoch=1)
    assert "epoch 1 wrote in epoch 2" in texts(fenced(told.end()))


def test_a_writer_that_did_not_claim_is_seen() -> None:
    """Two processes could share an epoch."""
    told = usual()
    told.write(A, "host-1")
    assert "host-1 wrote for host-2" in texts(fenced(told.end()))


def test_an_epoch_that_does_not_rise_by_one_is_seen() -> None:
    """An epoch could be given twice."""
    told = usual()
    told.agents[A].epoch -= 1
    told.later(60)
    told.claim(A)
    assert "claimed under epoch 2 after 2" in texts(fenced(told.end()))


def test_a_claim_from_a_living_holder_is_seen() -> None:
    """Agents would be torn from hosts that work."""
    told = usual()
    told.register("host-3/01", "host-3")
    told.claim(A, "host-3/01", "host-3")
    assert "while host-2/01 has a lease" in texts(fenced(told.end()))


@pytest.mark.parametrize("how", ["released", "superseded", "lapsed", "incarnation"])
def test_a_claim_from_one_that_holds_no_more_is_fine(how) -> None:
    """Every move of an agent would look like a theft."""
    told = usual()
    told.register("host-3/01", "host-3")
    if how == "released":
        told.add("host-2", "ok", "release", agent=A, key="host-2/01")
    elif how == "superseded":
        told.register("host-2/02", "host-2")
    elif how == "lapsed":
        told.later(60)
        told.register("host-3/01", "host-3")
    else:
        told.add("world", "info", "incarnation", key="second")
        told.register("host-3/01", "host-3")
    told.claim(A, "host-3/01", "host-3")
    assert fenced(told.end()) == []


def test_a_renewed_lease_holds() -> None:
    """A host that renews would seem to have lapsed."""
    told = usual()
    told.later(25)
    fact = told.register("host-2/01", "host-2", lease_s=60)
    fact.f = "renew"
    told.later(20)
    told.register("host-3/01", "host-3")
    told.claim(A, "host-3/01", "host-3")
    assert "while host-2/01 has a lease" in texts(fenced(told.end()))


def test_a_commit_of_another_incarnation_is_seen() -> None:
    """An epoch issued twice after a loss of data would be taken for the same."""
    told = usual()
    told.write(A, "host-2", incarnation="lost")
    assert "incarnation lost was accepted" in texts(fenced(told.end()))


def test_a_commit_on_another_version_is_seen() -> None:
    """A lost update would pass."""
    told = usual()
    told.turn(A, "host-2", expected_version=2, patch=[["set", ["n"], 9]])
    assert "built on 2, it was at 4" in texts(versions_dense(told.end()))


def test_a_version_that_jumps_is_seen() -> None:
    """A journal with a gap could not be replayed."""
    told = usual()
    told.facts[-1].ver += 1
    assert "at 5 after 1 events on 3" in texts(versions_dense(told.end()))
    facts = usual().end()
    journal = next(fact for fact in facts if fact.f == "final.agent").value.journal
    journal[1] = replace(journal[1], version=7)
    assert "versions [1, 7, 3, 4]" in texts(versions_dense(facts))


def test_a_snapshot_that_is_not_the_fold_is_seen() -> None:
    """A wrong snapshot would be believed for ever after."""
    told = usual()
    told.turn(A, "host-2", patch=[["set", ["n"], 5]], snapshot=Snapshot(b'{"n":4,"list":[1,2]}'))
    found = texts(replayed(told.end()))
    assert "the snapshot at 5 is not the journal's fold" in found
    assert "snapshot and tail are not the journal" in found


def test_a_tail_that_begins_too_early_or_late_is_seen() -> None:
    """An event would be applied twice or left out at the next activation."""
    for places in ((2, 3, 3), (3,), ()):
        facts = usual().end()
        stored = next(fact for fact in facts if fact.f == "final.agent").value
        stored.tail = tuple(stored.journal[place] for place in places)
        assert "tail" in texts(replayed(facts)), places


def test_an_event_that_does_not_apply_is_seen() -> None:
    """A journal that can't be read would end the check instead of failing it."""
    told = usual()
    told.turn(A, "host-2", patch=[["set", ["missing", "deep"], 1]])
    assert "version 5 does not apply" in texts(replayed(told.end()))
