"""Whole turns: I7. What is stored is what was committed, and all of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from runtime.store.contract import Document
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.reading import (
    commits,
    last_index,
    stored_agents,
    stored_documents,
    stored_messages,
)

Key = tuple[str, str]
"""(recipient, message id)"""


def turns_whole(facts: Sequence[Fact]) -> list[Violation]:
    """I7: of an accepted commit everything is stored, and nothing is stored without one.

    Compares the commits with what the independent reader found: messages and
    how they ended, journals, documents with their revisions, steps.
    """
    if not any(fact.f == "final.agent" for fact in facts):
        return []
    found = _messages_whole(facts) + _journals_whole(facts) + _documents_whole(facts)
    return found + _steps_whole(facts)


def _messages_whole(facts: Sequence[Fact]) -> list[Violation]:
    expected, reminded = _expected_messages(facts)
    found = []
    stored = stored_messages(facts)
    for key, (i, status) in expected.items():
        actual = stored[key].status if key in stored else "absent"
        if actual != status:
            text = f"{key[1]} of {key[0]} is {actual}, its commits say {status}"
            found.append(Violation("I7", i, text))
    for key in stored.keys() - expected.keys() - reminded:
        found.append(Violation("I7", last_index(facts), f"{key[1]} of {key[0]} came from nowhere"))
    return found


def _expected_messages(facts: Sequence[Fact]) -> tuple[dict[Key, tuple[int, str]], set[Key]]:
    """How each message should be stored, and the ids that reminders may have become."""
    expected: dict[Key, tuple[int, str]] = {}
    reminded: set[Key] = set()
    for fact, _, commit in commits(facts):
        agent = commit.agent or ""
        for item in commit.acks:
            expected[agent, item.message_id] = (fact.i, "processed")
        for bury in commit.buries:
            expected[agent, bury.message_id] = (fact.i, "dead")
        for send in commit.sends:
            expected.setdefault((send.recipient, send.message_id), (fact.i, "pending"))
        for remind in commit.reminders:
            reminded.add((agent, f"reminder:{remind.key}:{remind.due_ms}"))
    return expected, reminded


def _journals_whole(facts: Sequence[Fact]) -> list[Violation]:
    written: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for fact, _, commit in commits(facts):
        written[commit.agent or ""] += [(fact.i, event.body) for event in commit.events]
    found = []
    for fact, stored in stored_agents(facts):
        bodies = written.pop(fact.agent, [])
        for (i, body), event in zip(bodies, stored.journal, strict=False):
            if body != event.body:
                text = f"{fact.agent} version {event.version} is not what was committed"
                found.append(Violation("I7", i, text))
                break
        if len(bodies) != len(stored.journal):
            i = bodies[-1][0] if bodies else fact.i
            text = f"{fact.agent} has {len(stored.journal)} events, {len(bodies)} were committed"
            found.append(Violation("I7", i, text))
    return found


def _documents_whole(facts: Sequence[Fact]) -> list[Violation]:
    latest: dict[tuple[str, str], tuple[int, int, bytes | None]] = {}
    for fact, _, commit in commits(facts):
        for put in commit.puts:
            where = (put.collection, put.key)
            _, revision, body = latest.get(where, (0, 0, None))
            exists = body is not None or put.body is not None
            latest[where] = (fact.i, revision + exists, put.body)
    found = []
    collections: dict[str, dict[str, Document]] = {}
    for (collection, key), (i, revision, body) in latest.items():
        if collection not in collections:
            collections[collection] = stored_documents(facts, collection)
        document = collections[collection].get(key)
        actual = (document.revision, document.body) if document else (revision, None)
        if actual != (revision, body):
            text = f"{collection}/{key} has revision {actual[0]}, the commits made {revision}"
            found.append(Violation("I7", i, text))
    return found


def _steps_whole(facts: Sequence[Fact]) -> list[Violation]:
    results: dict[tuple[str, str], tuple[int, bytes]] = {}
    for fact, _, commit in commits(facts):
        for result in commit.results:
            results[result.job, result.key] = (fact.i, result.body)
    found = []
    for fact in facts:
        if fact.f != "final.steps":
            continue
        for step in fact.value:
            i, body = results.pop((fact.key, step.key), (fact.i, None))
            if step.result != body:
                found.append(Violation("I7", i, f"{fact.key} {step.key}: not what was committed"))
    for (job, key), (i, _) in results.items():
        found.append(Violation("I7", i, f"{job} {key}: its result is nowhere"))
    return found
