"""Rules about agents: I4 fencing, I5 versions, I6 replay."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from runtime.journal import apply, decode, fold
from runtime.verify.history import Fact, Lease, Violation
from runtime.verify.invariants.reading import commits, stored_agents
from runtime.verify.reader import Stored


def fenced(facts: Sequence[Fact]) -> list[Violation]:
    """I4: only who claimed an agent last writes for it, under the epoch of that claim.

    Epochs rise by one with each claim, the incarnation of a commit is the
    store's present one, and nobody claims an agent whose holder has a live
    lease (by the store's clock).
    """
    return _Fencing().go(facts)


class _Fencing:
    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.claimers: dict[str, str] = {}
        """Agent -> process that claimed it last."""
        self.owners: dict[str, str | None] = {}
        """Agent -> owner id that holds it."""
        self.leases: dict[str, Lease] = {}
        self.incarnation: str | None = None
        self.found: list[Violation] = []

    def go(self, facts: Sequence[Fact]) -> list[Violation]:
        for fact in facts:
            if fact.f == "claim":
                self._claim(fact)
            elif fact.f == "commit" and fact.type == "ok" and fact.agent:
                self._commit(fact)
            elif fact.f == "register":
                self._register(fact)
            elif fact.f == "renew" and fact.type == "ok" and fact.key in self.leases:
                self.leases[fact.key].until_ms = fact.value.until_ms
            elif fact.f == "release" and self.owners.get(fact.agent) == fact.key:
                self.owners[fact.agent] = None
            elif fact.f == "incarnation":
                self.incarnation = fact.key
                self.leases.clear()
        return self.found

    def _say(self, fact: Fact, text: str) -> None:
        self.found.append(Violation("I4", fact.i, f"{fact.agent}: {text}"))

    def _register(self, fact: Fact) -> None:
        for owner in [id for id, one in self.leases.items() if one.name == fact.value.name]:
            del self.leases[owner]
        lease = fact.value
        self.leases[fact.key] = Lease(lease.name, lease.now_ms, lease.until_ms)

    def _claim(self, fact: Fact) -> None:
        before = self.epochs.get(fact.agent, 0)
        if fact.epoch != before + 1:
            self._say(fact, f"claimed under epoch {fact.epoch} after {before}")
        holder = self.owners.get(fact.agent)
        lease = self.leases.get(holder) if holder else None
        if lease is not None and holder != fact.key and lease.until_ms > fact.value:
            self._say(fact, f"claimed by {fact.key} while {holder} has a lease")
        self.epochs[fact.agent] = fact.epoch
        self.claimers[fact.agent] = fact.proc
        self.owners[fact.agent] = fact.key

    def _commit(self, fact: Fact) -> None:
        fence = fact.value.commit.fence
        if fact.epoch != self.epochs.get(fact.agent, 0):
            self._say(fact, f"epoch {fact.epoch} wrote in epoch {self.epochs.get(fact.agent, 0)}")
        elif fact.proc != self.claimers.get(fact.agent):
            self._say(fact, f"{fact.proc} wrote for {self.claimers.get(fact.agent)}")
        if self.incarnation is not None and fence.incarnation != self.incarnation:
            self._say(fact, f"a commit of incarnation {fence.incarnation} was accepted")


def versions_dense(facts: Sequence[Fact]) -> list[Violation]:
    """I5: an agent's versions are 1, 2, 3 ...; each commit says what it builds on and is right."""
    versions: dict[str, int] = defaultdict(int)
    found = []
    for fact, _, commit in commits(facts):
        if commit.agent is None:
            continue
        before = versions[commit.agent]
        if commit.expected_version not in (None, before):
            text = f"{commit.agent}: built on {commit.expected_version}, it was at {before}"
            found.append(Violation("I5", fact.i, text))
        after = before + len(commit.events)
        if fact.ver != after:
            text = f"{commit.agent}: at {fact.ver} after {len(commit.events)} events on {before}"
            found.append(Violation("I5", fact.i, text))
        versions[commit.agent] = fact.ver
    for fact, stored in stored_agents(facts):
        actual = [event.version for event in stored.journal]
        if actual != list(range(1, len(actual) + 1)):
            found.append(Violation("I5", fact.i, f"{fact.agent}: versions {actual[:20]}"))
    return found


def replayed(facts: Sequence[Fact]) -> list[Violation]:
    """I6: the journal's fold is the state: every snapshot, and every snapshot with its tail."""
    snapshots: dict[str, dict[int, tuple[int, Any]]] = defaultdict(dict)
    for fact, _, commit in commits(facts):
        if commit.snapshot is not None and commit.agent:
            snapshots[commit.agent][fact.ver] = (fact.i, json.loads(commit.snapshot.body))
    found = []
    for fact, stored in stored_agents(facts):
        state: Any = {}
        for event in stored.journal:
            try:
                state = apply(state, decode(event.body).patch)
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                text = f"{fact.agent}: version {event.version} does not apply: {error!r}"
                found.append(Violation("I6", fact.i, text))
                break
            i, snapshot = snapshots[fact.agent].get(event.version, (0, state))
            if snapshot != state:
                text = f"{fact.agent}: the snapshot at {event.version} is not the journal's fold"
                found.append(Violation("I6", i, text))
        else:
            found += _tail(fact, stored, state)
    return found


def _tail(fact: Fact, stored: Stored, state: Any) -> list[Violation]:
    base = (json.loads(stored.snapshot.body), stored.snapshot.schema) if stored.snapshot else None
    events = [(event.body, event.schema) for event in stored.tail]
    try:
        again = fold(base, events, events[-1][1] if events else 1, {})
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        return [Violation("I6", fact.i, f"{fact.agent}: the tail does not apply: {error!r}")]
    if again != state:
        return [Violation("I6", fact.i, f"{fact.agent}: snapshot and tail are not the journal")]
    return []
