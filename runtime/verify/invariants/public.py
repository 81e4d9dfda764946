"""Rules about what clients see: I14 feed, I15 isolation, I17 keys, I21 own writes, units."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from runtime.ids import SYSTEM, kind_of, split
from runtime.journal import apply, decode
from runtime.verify.history import Fact, Tailed, Violation
from runtime.verify.invariants.reading import commits, last_index, stored_agents
from runtime.verify.workload import OPENING

_CANARY = re.compile(rb"canary-([a-z]+)")


def feed_dense(facts: Sequence[Fact]) -> list[Violation]:
    """I14: the feed is the events of the commits, in their order; subscribers see just that.

    Cursors are 1, 2, 3 ...; nothing is seen before its commit; a subscriber
    that comes back with a cursor gets what follows it, without gap or
    repetition, and `reset` if and only if the incarnation is another.
    """
    expected = [
        (event.organization, event.event, event.body, fact.i)
        for fact, _, commit in commits(facts)
        for event in commit.feed
    ]
    return _feed_is(facts, expected) + _Subscribers(expected).go(facts)


def _feed_is(facts: Sequence[Fact], expected: list[tuple[str, str, bytes, int]]) -> list[Violation]:
    final = next((fact for fact in facts if fact.f == "final.feed"), None)
    if final is None:
        return []
    if [entry.cursor for entry in final.value] != list(range(1, len(final.value) + 1)):
        return [Violation("I14", final.i, "the feed's cursors are not dense")]
    for entry, (organization, event, body, i) in zip(final.value, expected, strict=False):
        if (entry.organization, entry.event, entry.body) != (organization, event, body):
            return [Violation("I14", i, f"cursor {entry.cursor} is not what was committed")]
    if len(final.value) != len(expected):
        text = f"{len(final.value)} events are in the feed, {len(expected)} were committed"
        return [Violation("I14", final.i, text)]
    return []


class _Subscribers:
    def __init__(self, expected: list[tuple[str, str, bytes, int]]) -> None:
        self.by_organization: dict[str, list[int]] = defaultdict(list)
        for cursor, (organization, _, _, _) in enumerate(expected, 1):
            self.by_organization[organization].append(cursor)
            self.by_organization[""].append(cursor)
        self.published_at = [i for _, _, _, i in expected]
        self.found: list[Violation] = []

    def go(self, facts: Sequence[Fact]) -> list[Violation]:
        incarnations: list[tuple[int, str]] = []
        places: dict[str, int] = {}
        for fact in facts:
            if fact.f == "incarnation":
                incarnations.append((fact.i, fact.key))
            elif fact.f == "tail":
                self._tail(fact, fact.value, places.get(fact.key, 0))
                self._reset(fact, fact.value, incarnations)
                places[fact.key] = fact.value.cursor
        return self.found

    def _say(self, fact: Fact, text: str) -> None:
        self.found.append(Violation("I14", fact.i, f"{fact.key}: {text}"))

    def _tail(self, fact: Fact, tailed: Tailed, place: int) -> None:
        if tailed.after != place:
            self._say(fact, f"asked from {tailed.after}, it was at {place}")
        start = 0 if tailed.reset else tailed.after
        mine = self.by_organization[fact.org]
        wanted = tuple(cursor for cursor in mine if start < cursor <= tailed.cursor)
        if tailed.cursors != wanted:
            self._say(fact, f"after {start} it got {tailed.cursors[:9]}, not {wanted[:9]}")
        top = max(tailed.cursors, default=0)
        if top > len(self.published_at) or (top and self.published_at[top - 1] > fact.i):
            self._say(fact, f"cursor {top} was seen before its commit")

    def _reset(self, fact: Fact, tailed: Tailed, incarnations: list[tuple[int, str]]) -> None:
        if not tailed.incarnation or not incarnations:
            return
        during = {name for i, name in incarnations if i >= tailed.asked_at}
        earlier = [name for i, name in incarnations if i < tailed.asked_at]
        if earlier and earlier[-1] != tailed.incarnation and not tailed.reset:
            self._say(fact, "was not told that the incarnation is another")
        if tailed.reset and earlier and earlier[-1] == tailed.incarnation and not during:
            self._say(fact, "was told to start over for nothing")


def organizations_apart(facts: Sequence[Fact]) -> list[Violation]:
    """I15: nobody sees, reaches or writes what is another organization's.

    Everything shown to an organization, and everything stored as its own,
    carries its canary only; every attempt to cross has failed.
    """
    found = []
    for fact in facts:
        if fact.f == "cross" and fact.type == "ok":
            found.append(Violation("I15", fact.i, f"{fact.org} reached another by {fact.key}"))
        elif fact.f == "look" and fact.type == "ok":
            strange = [word for word in fact.value if word != f"canary-{fact.org}"]
            if strange:
                found.append(Violation("I15", fact.i, f"{fact.org} was shown {strange}"))
    for fact, _, commit in commits(facts):
        for send in commit.sends:
            ends = {split(send.sender)[0], split(send.recipient)[0]} - {SYSTEM}
            if len(ends) > 1:
                found.append(Violation("I15", fact.i, f"{send.message_id} goes between {ends}"))
            found += _strange(fact, send.recipient, ends, send.body)
        for put in commit.puts:
            found += _strange(fact, put.key, {put.organization} - {SYSTEM}, put.body or b"")
    return found


def _strange(fact: Fact, what: str, own: set[str], body: bytes) -> list[Violation]:
    canaries = {word.decode() for word in _CANARY.findall(body)}
    if own and canaries - own:
        return [Violation("I15", fact.i, f"{what} of {own} carries {canaries}")]
    return []


def idempotency_keys_kept(facts: Sequence[Fact]) -> list[Violation]:
    """I17: one key, one body, one result, however often it is asked; another body is refused."""
    known: dict[str, dict[str, str]] = {}
    found = []
    for fact in facts:
        if fact.f != "submit" or fact.type != "ok":
            continue
        first = known.setdefault(fact.key, fact.value)
        if first != fact.value:
            text = f"{fact.key} led to {first} and to {fact.value}"
            found.append(Violation("I17", fact.i, text))
    return found


def own_writes_read(facts: Sequence[Fact]) -> list[Violation]:
    """I21: who reads what it wrote gets it; what it deleted stays deleted.

    Each key has one writer, which does one thing after the other.
    """
    written: dict[str, Any] = {}
    found = []
    for fact in facts:
        if fact.type != "ok":
            continue
        if fact.f == "write":
            written[fact.key] = fact.value
        elif fact.f == "read" and fact.value != written.get(fact.key):
            text = f"{fact.key} reads {fact.value!r}, written was {written.get(fact.key)!r}"
            found.append(Violation("I21", fact.i, text))
    return found


def units_conserved(facts: Sequence[Fact]) -> list[Violation]:
    """The accounts of an organization hold together what they were opened with.

    Each was opened once, and none is below zero.
    """
    units: dict[str, int] = defaultdict(int)
    found = []
    for fact, stored in stored_agents(facts):
        if kind_of(fact.agent) != "account" or not stored.journal:
            continue
        state: Any = {}
        try:
            for event in stored.journal:
                state = apply(state, decode(event.body).patch)
        except (KeyError, TypeError):
            continue  # I6 says so
        units[split(fact.agent)[0]] += state["units"] - OPENING
        if state["opened"] != 1:
            text = f"{fact.agent} was initialized {state['opened']} times"
            found.append(Violation("IUnits", fact.i, text))
        if state["units"] < 0:
            found.append(Violation("IUnits", fact.i, f"{fact.agent} has {state['units']} units"))
    for organization, surplus in units.items():
        if surplus:
            text = f"{surplus} units of {organization} came from nowhere"
            found.append(Violation("IUnits", last_index(facts), text))
    return found
