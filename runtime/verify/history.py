"""What happened, as plain facts in one order.

Facts are written by the tap in the store, by the test's clients and by the
outside that jobs call; never by the code under test.  `t_ms` is true time, the
same for everybody.  Everything the invariants know they know from here.

    f            type               by        key, value
    limits       info               world     value Limits
    register     ok                 tap       key owner, value Lease
    renew        ok | fail          tap       key owner, value Lease
    release      ok                 tap       key owner, agent
    claim        ok                 tap       key owner, agent, epoch, ver, value store's clock
    incarnation  info               world     key: the store has a new one
    commit       ok | fail          tap       org, agent, epoch, ver, key reason, value Written
    CLIENT VERB  invoke|ok|fail|info client   org, agent, msg, key, value: see `driver`
    run          invoke              worker   key job, value: names the run of process_task
    call         invoke|ok|fail      outside  key step, value Call
    lookup       ok                  outside  the same: asked by its key, not called
    tail         ok                 subscriber org, key its name, value Tailed
    kill, ...    info               nemesis   key process
    calm         info               nemesis   no faults from here on
    final.*      ok                 reader    what is stored at the end: see `reader`

`invoke` begins something, `ok` and `fail` say that it did and did not happen,
`info` that nobody knows.

Source: Jepsen's histories; research/reliability.md 3.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from runtime.store.contract import Commit

Kind = Literal["invoke", "ok", "fail", "info"]
NEIGHBOURS = 4
"""Facts shown before and after a violating one."""


class Fact(msgspec.Struct, omit_defaults=True):
    """One line of a history."""

    i: int
    t_ms: int
    proc: str
    type: Kind
    f: str
    org: str = ""
    agent: str = ""
    """Address."""
    msg: str = ""
    key: str = ""
    epoch: int = 0
    ver: int = 0
    value: Any = None


class Written(msgspec.Struct):
    """A commit and what became of it."""

    commit: Commit
    seqs: tuple[int, ...] = ()
    cursor: int = 0


class Lease(msgspec.Struct):
    """An owner's lease, by the store's clock."""

    name: str
    now_ms: int
    until_ms: int


class Call(msgspec.Struct):
    """One call of a job's step to the outside."""

    step: str
    kind: str
    run: str
    """Names one run of process_task: its activation and which run there it is."""
    result: str = ""
    cost_usd: float = 0.0


class Tailed(msgspec.Struct):
    """One answer that a subscriber of the feed got."""

    after: int
    incarnation: str
    """Under which `after` was given."""
    cursors: tuple[int, ...]
    cursor: int
    reset: bool
    asked_at: int = 0
    """Number of facts there were when it asked."""


class History:
    """Facts in the order in which they became true."""

    def __init__(self, now_ms: Any = lambda: 0) -> None:
        """Args: now_ms: true time."""
        self.facts: list[Fact] = []
        self._now_ms = now_ms

    def add(self, proc: str, type: Kind, f: str, **fields: Any) -> Fact:
        fact = Fact(len(self.facts), self._now_ms(), proc, type, f, **fields)
        self.facts.append(fact)
        return fact

    def digest(self) -> str:
        """A hash over every fact; equal histories, equal hashes."""
        encode = msgspec.msgpack.Encoder().encode
        hasher = hashlib.blake2b(digest_size=16)
        for fact in self.facts:
            hasher.update(encode(fact))
        return hasher.hexdigest()


class Violation(msgspec.Struct):
    """A rule that a history breaks, and where."""

    rule: str
    i: int
    """Index of the first fact that shows it."""
    text: str


def neighbours(facts: Sequence[Fact], i: int) -> list[str]:
    """The facts around one, each on a line; those about the same agent or key first."""
    chosen = facts[i]
    related = [
        fact
        for fact in facts[:i]
        if (chosen.agent and fact.agent == chosen.agent) or (chosen.key and fact.key == chosen.key)
    ]
    around = facts[max(0, i - NEIGHBOURS) : i + NEIGHBOURS + 1]
    lines = {fact.i: fact for fact in [*related[-2 * NEIGHBOURS :], *around]}
    return [("> " if at == i else "  ") + line(lines[at]) for at in sorted(lines)]


def line(fact: Fact) -> str:
    """A fact on one line, without what it leaves out."""
    parts = [f"{fact.i}", f"{fact.t_ms / 1000:.3f}s", fact.proc, fact.type, fact.f]
    parts += [text for text in (fact.org, fact.agent, fact.msg, fact.key) if text]
    if fact.epoch:
        parts.append(f"epoch={fact.epoch}")
    if fact.ver:
        parts.append(f"ver={fact.ver}")
    if isinstance(fact.value, Written):
        parts.append(_commit_line(fact.value.commit))
    elif fact.value is not None:
        parts.append(str(fact.value)[:200])
    return " ".join(parts)


def _commit_line(commit: Commit) -> str:
    parts = [f"expected={commit.expected_version}"] if commit.expected_version is not None else []
    for name in ("acks", "retries", "buries"):
        if items := getattr(commit, name):
            parts.append(f"{name}={[item.message_id for item in items]}")
    if commit.sends:
        parts.append(f"sends={[(send.message_id, send.recipient) for send in commit.sends]}")
    for name in ("intents", "results"):
        if items := getattr(commit, name):
            parts.append(f"{name}={[(item.job, item.key) for item in items]}")
    if commit.puts:
        parts.append(f"puts={[(put.collection, put.key, put.expect) for put in commit.puts]}")
    parts += [
        f"{name}={len(items)}" for name in ("events", "feed") if (items := getattr(commit, name))
    ]
    return " ".join(parts)
