"""Planted in the store: fences, dedupe, expectations, reminders, leases, the feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from runtime.store import rules
from runtime.store.contract import Commit, Fence, Refused
from runtime.store.memory import MemoryStore
from runtime.store.remote import CodedStore
from runtime.store.roster import Agent, Roster
from runtime.verify.bugs.bug import Bug, Plant


def _blind(*, epoch: bool = False, version: bool = False, incarnation: bool = False) -> Any:
    """A fence that does not compare something."""

    def make(fenced: Callable[..., Refused | None]) -> Any:
        def blind(commit: Commit, agent: Agent | None, now: str) -> Refused | None:
            if agent is not None and agent.epoch and commit.fence is not None:
                fence = commit.fence
                present = Fence(
                    now if incarnation else fence.incarnation,
                    agent.epoch if epoch else fence.epoch,
                )
                expected = commit.expected_version
                if version and expected is not None:
                    expected = agent.version
                commit = replace(commit, fence=present, expected_version=expected)
            return fenced(commit, agent, now)

        return blind

    return make


EPOCH = Plant(rules, "_fenced", _blind(epoch=True))
VERSION = Plant(rules, "_fenced", _blind(version=True))
INCARNATION = Plant(rules, "_fenced", _blind(incarnation=True))


def _any_step_of_the_agent(_: Any) -> Any:
    def begun_before(result: Any, commit: Commit, view: Any) -> bool:
        step = view.step(result.job, result.key)
        return step is not None and step[0] == commit.agent and not step[2]

    return begun_before


def _takes_with_the_same_epoch(take: Any) -> Any:
    def taking(self: Roster, agent: Agent, owner: str) -> None:
        before = agent.epoch
        take(self, agent, owner)
        agent.epoch = before or agent.epoch

    return taking


def _takes_from_the_living(_: Any) -> Any:
    def takeable(self: Roster, agent: Agent, owner: str, now_ms: int) -> bool:
        return agent.owner != owner and self.live(owner, now_ms)

    return takeable


def _lives_for_ever(_: Any) -> Any:
    return lambda self, owner, now_ms: owner in self.owners


def _drops_what_waits(drop: Any) -> Any:
    def dropping(self: Roster, agent: Agent) -> None:
        drop(self, agent)
        for message_id in list(agent.pending):
            self.finished(agent, message_id)

    return dropping


def _publishes_refused(one: Any) -> Any:
    def writing(self: MemoryStore, commit: Commit) -> Any:
        answer = one(self, commit)
        if isinstance(answer, Refused) and commit.feed:
            one(self, Commit(commit.organization, feed=commit.feed))
        return answer

    return writing


def _accepts_every_document(_: Any) -> Any:
    return lambda commit, view: None


def _takes_over(puts: Any) -> Any:
    def judging(commit: Commit, view: Any) -> Refused | None:
        refused: Refused | None = puts(commit, view)
        mine = refused is not None and refused.reason == "foreign_organization"
        return None if mine else refused

    return judging


def _never_refuses(_: Any) -> Any:
    return lambda *_: None


class _Impatient:
    """A clock two seconds ahead."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        return int(self._clock.now_ms()) + 2_000


def _fires_early(fire_due: Any) -> Any:
    def firing(self: MemoryStore) -> None:
        clock = self._clock
        try:
            self._clock = _Impatient(clock)
            fire_due(self)
        finally:
            self._clock = clock

    return firing


def _keeps_cancelled(remind_one: Any) -> Any:
    def reminding(self: MemoryStore, address: str, remind: Any) -> None:
        if remind.due_ms is not None:
            remind_one(self, address, remind)

    return reminding


def _fires_again(fire_due: Any) -> Any:
    """What has fired is set again, once."""
    again: set[tuple[Any, int]] = set()

    def firing(self: MemoryStore) -> None:
        before = dict(self._tables.reminders)
        fire_due(self)
        for where, (due_ms, body) in before.items():
            if where not in self._tables.reminders and (where, due_ms) not in again:
                again.add((where, due_ms))
                self._tables.reminders[where] = (due_ms, body)

    return firing


class _Forgets:
    """A set that remembers no reminder."""

    def __init__(self, received: Any) -> None:
        self._received = received

    def __contains__(self, key: tuple[str, str]) -> bool:
        return not key[1].startswith("reminder:") and key in self._received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._received, name)


def _does_not_know_reminders(init: Any) -> Any:
    def initializing(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        self.received = _Forgets(self.received)

    return initializing


def _skips_one(tail: Any) -> Any:
    async def tailing(self: CodedStore, *arguments: Any) -> Any:
        feed = await tail(self, *arguments)
        return replace(feed, entries=feed.entries[1:]) if len(feed.entries) > 1 else feed

    return tailing


def _never_resets(tail: Any) -> Any:
    async def tailing(self: CodedStore, *arguments: Any) -> Any:
        return replace(await tail(self, *arguments), reset=False)

    return tailing


def _foreign_is_fine(_: Any) -> Any:
    return lambda commit: None


BUGS = (
    Bug("incarnation not compared", (INCARNATION,)),
    Bug("epoch and version not compared", (EPOCH, VERSION)),
    Bug("epoch of a step's intent not compared",
        (EPOCH, Plant(rules, "_begun_before", _any_step_of_the_agent))),
    Bug("epoch not raised by a claim", (Plant(Roster, "take", _takes_with_the_same_epoch),)),
    Bug("claim takes from the living", (Plant(Roster, "takeable", _takes_from_the_living),)),
    Bug("lease never lapses", (Plant(Roster, "live", _lives_for_ever),)),
    Bug("messages dropped on release", (Plant(Roster, "drop", _drops_what_waits),)),
    Bug("message accepted twice", (Plant(rules, "_sends", _never_refuses),)),
    Bug("document's expectation ignored", (Plant(rules, "_puts", _accepts_every_document),)),
    Bug("feed published though refused", (Plant(MemoryStore, "_one", _publishes_refused),)),
    Bug("feed skips an event", (Plant(CodedStore, "tail", _skips_one),)),
    Bug("reset not told", (Plant(CodedStore, "tail", _never_resets),)),
    Bug("reminder fires early", (Plant(MemoryStore, "_fire_due", _fires_early),)),
    Bug("cancelled reminder fires", (Plant(MemoryStore, "_remind", _keeps_cancelled),)),
    Bug("reminder fires twice",
        (Plant(MemoryStore, "_fire_due", _fires_again),
         Plant(MemoryStore, "__init__", _does_not_know_reminders))),
    Bug("another's document taken over", (Plant(rules, "_puts", _takes_over),)),
    Bug("organizations meet", (Plant(rules, "_foreign", _foreign_is_fine),)),
)  # fmt: skip
