"""Rules about messages: I1 nothing lost, I2 once, I3 in order, and that answers are durable."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runtime.ids import SCHEDULER
from runtime.store.contract import StoredMessage
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.reading import (
    commits,
    finished,
    is_run,
    stored_documents,
    stored_messages,
)

Key = tuple[str, str]
"""(recipient, message id)"""


def nothing_lost(facts: Sequence[Fact]) -> list[Violation]:
    """I1: every accepted message ends processed or as a dead letter; none is queued at the end.

    Accepted is what a commit with the send was answered ok for, and what a
    client was told was accepted.  A dead message has its letter; of a run that is its job's.
    """
    stored = stored_messages(facts)
    if not stored:
        return []
    letters = stored_documents(facts, "dead_letter")
    found = []
    for key, i in _accepted(facts).items():
        message = stored.get(key)
        if message is None:
            found.append(Violation("I1", i, f"{key[1]} for {key[0]} was accepted and is nowhere"))
        elif message.status == "pending":
            found.append(Violation("I1", i, f"{key[1]} for {key[0]} is still queued"))
        elif message.status != "dead" or is_run(key[1]):
            continue
        elif f"{key[0]}/{key[1]}" not in letters:
            found.append(Violation("I1", i, f"{key[1]} for {key[0]} is dead without a letter"))
    return found


def _accepted(facts: Sequence[Fact]) -> dict[Key, int]:
    accepted: dict[Key, int] = {}
    for fact in facts:
        if fact.type != "ok":
            continue
        if fact.f == "commit":
            for send in fact.value.commit.sends:
                accepted.setdefault((send.recipient, send.message_id), fact.i)
        elif fact.f in ("send", "ask"):
            accepted.setdefault((fact.agent, fact.msg), fact.i)
    return accepted


def answers_durable(facts: Sequence[Fact]) -> list[Violation]:
    """IAnswer: what an asker was told is what is stored, and was committed before it was told."""
    stored = stored_messages(facts)
    committed: dict[Key, int] = {}
    found = []
    for fact in facts:
        if fact.type != "ok":
            continue
        if fact.f == "commit":
            for ack in fact.value.commit.acks:
                committed[fact.agent, ack.message_id] = fact.i
        elif fact.f == "ask":
            key = (fact.agent, fact.msg)
            if key not in committed:
                found.append(Violation("IAnswer", fact.i, f"{fact.msg} was answered, not handled"))
            message = stored.get(key)
            reply = json.loads(message.reply or b"null") if message else None
            if message is not None and reply != fact.value:
                text = f"{fact.msg} was answered {fact.value!r}, stored is {reply!r}"
                found.append(Violation("IAnswer", fact.i, text))
    return found


def each_once(facts: Sequence[Fact]) -> list[Violation]:
    """I2: a message leaves its inbox in at most one commit and enters it in at most one.

    So it changes its agent's state at most once, and the messages that a turn
    sends are sent once.
    """
    sent: set[Key] = set()
    handled: set[Key] = set()
    found = []
    for fact, _, commit in commits(facts):
        for send in commit.sends:
            key = (send.recipient, send.message_id)
            if key in sent:
                found.append(Violation("I2", fact.i, f"{key[1]} for {key[0]} was sent twice"))
            sent.add(key)
        for message_id in finished(commit):
            key = (commit.agent or "", message_id)
            if key in handled:
                found.append(Violation("I2", fact.i, f"{key[1]} of {key[0]} was handled twice"))
            handled.add(key)
    return found


def in_order(facts: Sequence[Fact]) -> list[Violation]:
    """I3: messages of one sender to one recipient are handled in the order of their acceptance.

    A message that failed keeps its place.  Reminders come when they are due and
    `job.run` is acknowledged when the run ends: neither is a member of the
    order.  The scheduler keeps it for the messages about one job.  Seqs only
    ever grow.
    """
    found = []
    head = 0
    for fact, written, _ in commits(facts):
        for seq in written.seqs:
            if seq <= head:
                found.append(Violation("I3", fact.i, f"seq {seq} was given after {head}"))
            head = max(head, seq)
    stored = stored_messages(facts)
    latest: dict[tuple[str, str, str], int] = {}
    for fact, _, commit in commits(facts):
        for message_id in finished(commit):
            message = stored.get((commit.agent or "", message_id))
            if message is None or message_id.startswith(("run:", "reminder:")):
                continue
            pair = (message.sender, message.recipient, _about(message))
            if message.seq < latest.get(pair, 0):
                text = f"{message_id} (seq {message.seq}) after seq {latest[pair]} of {pair}"
                found.append(Violation("I3", fact.i, text))
            latest[pair] = max(message.seq, latest.get(pair, 0))
    return found


def _about(message: StoredMessage) -> str:
    if message.recipient != SCHEDULER:
        return ""
    content = json.loads(message.body)["content"]
    return str(content.get("jobId", ""))
