"""Random work on every store and on the model: every answer and every read agree.

What is random: stale and right fences, versions and expectations, duplicate
sends, acknowledgements of what is pending, done or unknown, steps, claims,
owners that supersede each other, leases, reminders, time, forgetting and purging
in pieces, and (where the store is durable) closing and opening it in between.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runtime.clock import ManualClock
from runtime.store import redis, roster, rules
from runtime.store.contract import Commit, Refused, Send
from runtime.verify.bugs.bug import swapped
from runtime.verify.conformance.draws import (
    AGENTS,
    JOBS,
    OWNERS,
    TERMS,
    Draws,
    agents,
    few,
    ids,
    keys,
    owners,
)
from runtime.verify.conformance.model import Model
from runtime.verify.conformance.stores import DURABLE, FORGETTING, Opened, Opener

INBOX_MAX = 6
"""So few that inboxes are full now and then."""
CALL_S = 20.0
"""A call of the store that takes longer is a divergence."""


class StoreMachine(RuleBasedStateMachine):
    store_name = ""
    openers: Mapping[str, Opener] = {}
    done: Counter[str] = Counter()  # noqa: RUF012 - of all runs: what was counted

    @initialize()
    def open(self) -> None:
        self.bounds = ExitStack()
        for module in (roster, rules, redis):
            self.bounds.enter_context(swapped(module, "INBOX_MAX", INBOX_MAX))
        self.loop = asyncio.new_event_loop()
        self.path = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.clock = ManualClock()
        self.opened = Opened(
            self.openers[self.store_name], self.store_name in DURABLE, self.path, self.clock
        )
        self.store = self.run(self.opened.start())
        incarnation = self.run(self.store.register("o1", "host-1", 10))
        self.model = Model(incarnation)
        self.draws = Draws(self.model, self.clock)
        self.model.register("o1", "host-1", self.now + 10_000)
        self.claim_as("o1", 2, AGENTS[:2])

    def teardown(self) -> None:
        if hasattr(self, "model"):
            with self.bounds:
                self.read_everything()
                self.run(self.opened.stop())
            self.loop.close()
            self.done["runs"] += 1
            shutil.rmtree(self.path)

    def run(self, call: Any) -> Any:
        self.done["calls"] += 1
        return self.loop.run_until_complete(asyncio.wait_for(call, CALL_S))

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    # writing

    @rule(data=st.data(), count=few)
    def commit(self, data: Any, count: int) -> None:
        self.commit_some(data, count)

    @rule(data=st.data(), count=few)
    def commit_more(self, data: Any, count: int) -> None:
        """The same again, so that it is drawn twice as often as any other work."""
        self.commit_some(data, count)

    def commit_some(self, data: Any, count: int) -> None:
        batch = [self.draws.commit(data.draw) for _ in range(count)]
        expected = [self.model.commit(commit, self.now) for commit in batch]
        answers = self.run(self.store.commit(batch))
        for answer, right in zip(answers, expected, strict=True):
            if isinstance(right, Refused) and not right.detail:
                assert isinstance(answer, Refused) and answer.reason == right.reason
            else:
                assert answer == right

    @rule(agent=agents, sends=st.lists(ids, min_size=1, max_size=2, unique=True))
    def send(self, agent: Any, sends: list[str]) -> None:
        of = agent.split("/")[0]
        commit = Commit(of, sends=tuple(Send(id, f"{of}/client:x", agent, b"") for id in sends))
        expected = self.model.commit(commit, self.now)
        assert self.run(self.store.commit([commit])) == [expected]

    # owners, agents, time

    @rule(
        owner=owners, verb=st.sampled_from(["register", "renew"]), lease_s=st.sampled_from([1, 10])
    )
    def lease(self, owner: str, verb: str, lease_s: int) -> None:
        until = self.now + lease_s * 1000
        if verb == "renew":
            expected = self.model.renew(owner, until)
            assert self.run(self.store.renew(owner, lease_s)) is expected
        else:
            self.model.register(owner, OWNERS[owner], until)
            found = self.run(self.store.register(owner, OWNERS[owner], lease_s))
            assert found == self.model.incarnation

    @rule(owner=owners, limit=st.integers(0, 3), named=st.none() | st.lists(agents, max_size=4))
    def claim(self, owner: str, limit: int, named: list[str] | None) -> None:
        self.claim_as(owner, limit, named)

    def claim_as(self, owner: str, limit: int, named: list[str] | None) -> None:
        expected = self.model.claim(owner, limit, named, self.now)
        found = self.run(self.store.claim(owner, limit, named))
        assert [
            (
                one.agent,
                one.epoch,
                one.version,
                one.snapshot_version,
                one.snapshot,
                list(one.events),
                [as_dict(message) for message in one.inbox],
                one.abandoned,
            )
            for one in found
        ] == expected

    @rule(owner=owners, some_agents=st.lists(agents, max_size=2), again=owners)
    def hand_over(self, owner: str, some_agents: list[str], again: str) -> None:
        self.model.release(owner, some_agents)
        self.run(self.store.release(owner, some_agents))
        self.claim_as(again, 2, some_agents)

    @rule(seconds=st.sampled_from([0.001, 1, 5, 11]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.store_name in FORGETTING)
    @rule(
        age_s=st.sampled_from([0, 1, 6]),
        limit=few,
        ended=st.lists(st.sampled_from(JOBS), max_size=2),
    )
    def prune(self, age_s: int, limit: int, ended: list[str]) -> None:
        before = self.now - age_s * 1000
        expected = self.model.prune(before, ended)
        assert self.sweep(lambda: self.store.prune(before, limit, ended), limit) == expected

    @precondition(lambda self: self.store_name in FORGETTING)
    @rule(of=st.sampled_from(["acme", "beta"]), limit=few, chance=st.integers(0, 3))
    def purge(self, of: Any, limit: int, chance: int) -> None:
        if chance == 0:  # not so often that nothing else is left to be done
            self.model.purge(of)
            self.sweep(lambda: self.store.purge(of, limit))

    def sweep(self, call: Any, limit: int = 1 << 30) -> int:
        """Call until there is no more; the rows of all calls."""
        rows: int = 0
        while True:
            swept = self.run(call())
            assert swept.rows <= limit
            rows += int(swept.rows)
            if not swept.more:
                return rows

    @precondition(lambda self: self.store_name in DURABLE)
    @rule()
    def reopen(self) -> None:
        self.store = self.run(self.opened.reopen())
        self.model.accepted, self.model.refused = 0, {}

    # reading

    @rule(data=st.data(), limit=few, what=st.sampled_from(["poll", "agent", "documents", "feed"]))
    def look(self, data: Any, limit: int, what: str) -> None:
        getattr(self, f"read_{what}")(data, limit)

    def read_poll(self, data: Any, limit: int) -> None:
        owner = data.draw(owners)
        after = data.draw(st.integers(0, self.model.seq))
        messages, ready = self.model.poll(owner, after, self.now)
        poll = self.run(self.store.poll(owner, after, limit, 0))
        assert [as_dict(message) for message in poll.messages] == messages[:limit]
        assert poll.ready == ready
        following = self.model.poll(owner, poll.cursor, self.now)[0]
        assert following == messages[limit:], "the cursor skips or repeats"

    def read_agent(self, data: Any, limit: int) -> None:
        agent = data.draw(agents)
        after = data.draw(st.integers(0, self.model.seq))
        for read, all_of_it in (
            (self.store.inbox, self.model.inbox(agent)),
            (self.store.history, self.model.history(agent)),
        ):
            expected = [message for message in all_of_it if message["seq"] > after][:limit]
            assert [as_dict(one) for one in self.run(read(agent, after, limit))] == expected
        events = [event for event in self.model.journal(agent) if event.version > after][:limit]
        assert self.run(self.store.journal(agent, after, limit)) == events

    def read_documents(self, data: Any, limit: int) -> None:
        of = data.draw(st.sampled_from([None, "acme", "beta"]))
        terms = data.draw(st.lists(st.sampled_from(TERMS), max_size=2, unique=True))
        after = data.draw(st.none() | keys)
        descending = data.draw(st.booleans())
        for collection in ("job", "issue"):
            everything = self.model.listed(collection, of, terms)
            assert self.run(self.store.count(collection, of, terms)) == len(everything)
            if descending:
                everything.reverse()
            if after is not None:
                everything = [
                    d for d in everything if (d.key < after if descending else d.key > after)
                ]
            page = self.store.list_documents(collection, of, terms, after, limit, descending)
            assert self.run(page) == everything[:limit]

    def read_feed(self, data: Any, limit: int) -> None:
        of = data.draw(st.sampled_from([None, "acme", "beta"]))
        after = data.draw(st.integers(-1, self.model.head + 1))
        feed = self.run(self.store.tail(after, limit, 0, of, self.model.incarnation))
        assert feed == self.model.tail(after, limit, of)

    def read_everything(self) -> None:
        for agent in AGENTS:
            history = [as_dict(one) for one in self.run(self.store.history(agent, 0, 100))]
            assert history == self.model.history(agent)
            inbox = [as_dict(one) for one in self.run(self.store.inbox(agent, 0, 100))]
            assert inbox == self.model.inbox(agent)
            assert self.run(self.store.journal(agent, 0, 100)) == self.model.journal(agent)
            for message in history:
                found = self.run(self.store.outcome(agent, message["message_id"], 0))
                assert as_dict(found) == message
        for job in JOBS:
            assert self.run(self.store.steps(job)) == self.model.steps_of(job)
        for (collection, key), document in self.model.documents.items():
            assert self.run(self.store.get(collection, key)) == document
        assert self.run(self.store.tail(0, 1000, 0)).entries == tuple(self.model.feed)
        assert self.run(self.store.tail(-1, 1, 0)).cursor == self.model.head
        health = self.run(self.store.health())
        assert (health.commits, health.refused) == (self.model.accepted, self.model.refused)


def as_dict(message: Any) -> Any:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def run_machine(
    openers: Mapping[str, Opener], name: str, runs: int, steps: int, derandomize: bool
) -> Counter[str]:
    """So many runs of a store; what was done.

    Raises:
        AssertionError: the store and the model differ; its notes are the shortest way there.
    """
    done: Counter[str] = Counter()
    fields = {"store_name": name, "openers": openers, "done": done}
    machine = type(f"Machine_{name}", (StoreMachine,), fields)
    how = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=how)
    return done
