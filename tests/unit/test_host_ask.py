"""What is asked of an agent that lives here is accepted and handled in one commit, or as ever."""

from __future__ import annotations

import asyncio

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.errors import DeadLetterError
from runtime.hosting import suspects
from runtime.message import Message
from runtime.store.contract import Commit
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe, eventually

A = "acme/scribe:a"


class Scribe(BaseAgent):
    """Writes down what it is told, in order."""

    kind = "scribe"

    class State(AgentState):
        heard: list[str] = []  # noqa: RUF012 - pydantic copies it

    async def receive_message(self, message: Message) -> list[str] | None:
        if message.message_type == "reply":
            return None
        if message.message_type == "tell":
            await self.send_message("scribe:b", message.content)
        if message.content == "fail":
            raise ValueError("told to")
        self.state.heard.append(message.content)
        return self.state.heard


class Watched(MemoryStore):
    """Notes the commits, and lets a test do something before one of them."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.commits: list[Commit] = []
        self.before_at_once = None

    async def commit(self, commits):
        if self.before_at_once is not None and any(one.at_once for one in commits):
            before, self.before_at_once = self.before_at_once, None
            await before()
        self.commits += commits
        return await super().commit(commits)


@pytest.fixture
async def troupe():
    troupe = await LocalTroupe({"scribe": Scribe}, Watched()).start()
    await troupe.client().ask("scribe:a", "first", "note")  # it lives here from now on
    troupe.store.commits.clear()
    yield troupe
    await troupe.stop()


class Held:
    """Put before a commit: says when it is reached, and lets it go on when told to."""

    def __init__(self, store: Watched) -> None:
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()
        store.before_at_once = self._hold

    async def _hold(self) -> None:
        self.reached.set()
        await self.let_go.wait()


async def ask(troupe, content: str, message_type: str = "note", id: str | None = None):
    message = troupe.client().message("scribe:a", content, message_type, message_id=id)
    return await troupe.hosts["host-0"].ask("acme", message.sender, message, A)


async def heard(troupe) -> list[str]:
    return (await troupe.hosts["host-0"]._active[A].folded.at(None, troupe.store))["heard"]


async def test_an_ask_is_one_commit(troupe) -> None:
    """An ask would pay for two."""
    assert await ask(troupe, "second") == b'["first","second"]'
    [commit] = troupe.store.commits
    assert commit.at_once
    assert (await troupe.store.history(A, 0, 10))[-1].status == "processed"


async def test_an_ask_does_not_overtake_what_its_sender_has_sent(troupe) -> None:
    """A message that waits at the store, unknown to the host yet, would be handled later."""
    client = troupe.client()
    troupe.store.before_at_once = lambda: client.send("scribe:a", "before", "note")
    assert await ask(troupe, "after") == b'["first","before","after"]'


async def test_a_turn_that_fails_has_never_been_and_its_message_takes_the_ordinary_way(
    troupe, monkeypatch
) -> None:
    """A failing handler would change the state, or its message be neither handled nor dead."""
    monkeypatch.setattr("runtime.hosting.activation.DELIVERIES_MAX", 1)
    with pytest.raises(DeadLetterError, match="told to"):
        await ask(troupe, "fail", "tell")
    assert await heard(troupe) == ["first"]
    assert await troupe.store.history("acme/scribe:b", 0, 10) == []
    assert (await troupe.store.history(A, 0, 10))[-1].status == "dead"
    assert await ask(troupe, "next") == b'["first","next"]'


async def test_the_same_ask_twice_is_handled_once(troupe) -> None:
    """Whoever asks again because no answer came would change the state twice."""
    once, twice = await asyncio.gather(
        ask(troupe, "second", id="same"), ask(troupe, "second", id="same")
    )
    assert once == twice == b'["first","second"]'
    assert await ask(troupe, "second", id="same") == once
    assert await heard(troupe) == ["first", "second"]


async def test_what_a_turn_that_was_asked_sends_is_handed_over(troupe) -> None:
    """A message sent by such a turn would be lost or wait for nobody."""
    await ask(troupe, "second", "tell")
    [sent] = await troupe.store.history("acme/scribe:b", 0, 10)
    assert (await troupe.store.outcome("acme/scribe:b", sent.message_id, 5.0)).status == "processed"


async def test_an_ask_of_an_agent_that_was_taken_away_is_answered_where_it_lives(troupe) -> None:
    """An ask whose commit is refused would wait for ever, or be answered from a stale state."""
    await troupe.start_host("host-0")  # supersedes the one that holds the agent
    await troupe.client().ask("scribe:a", "elsewhere", "note")
    assert await ask(troupe, "again") == b'["first","elsewhere","again"]'


async def test_a_stopped_activation_leaves_nobody_waiting(troupe) -> None:
    """A caller would wait for an agent that has left memory."""
    held, host = Held(troupe.store), troupe.hosts["host-0"]
    asking = [asyncio.create_task(ask(troupe, str(number))) for number in range(3)]
    async with asyncio.timeout(5):
        await held.reached.wait()
        activation = host._active[A]
        leaving = asyncio.create_task(host._deactivate(activation, "idle"))
        while not activation.stopped:
            await asyncio.sleep(0)
        held.let_go.set()
        await leaving
        answers = await asyncio.gather(*asking)
    assert host._active[A] is not activation
    assert len(set(answers)) == 3


async def test_whoever_goes_away_in_mid_ask_leaves_the_agent_whole(troupe) -> None:
    """A cancelled ask would leave a state that the store does not have, or a stuck agent."""
    held = Held(troupe.store)
    asking = asyncio.create_task(ask(troupe, "second"))
    async with asyncio.timeout(5):
        await held.reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        held.let_go.set()
        assert await ask(troupe, "third") == b'["first","second","third"]'


async def test_an_agent_that_leaves_in_mid_ask_answers_all_the_same(troupe) -> None:
    """Whoever asked would be cancelled, though only the agent was to leave."""
    held, host = Held(troupe.store), troupe.hosts["host-0"]
    asking = asyncio.create_task(ask(troupe, "second"))
    async with asyncio.timeout(5):
        await held.reached.wait()
        leaving = asyncio.create_task(host._deactivate(host._active[A], "idle"))
        while not host._active[A].stopped:
            await asyncio.sleep(0)
        held.let_go.set()
        assert await asking == b'["first","second"]'
        await leaving
    assert await ask(troupe, "third") == b'["first","second","third"]'


async def test_what_a_host_may_have_died_of_is_accepted_before_it_is_handled(
    troupe, monkeypatch
) -> None:
    """Asked again and again it would kill host after host, and nothing would be known of it."""
    await troupe.kill_host("host-0")
    await troupe.start_host("host-0")
    await troupe.client().ask("scribe:a", "second", "note")  # it lives here again
    troupe.store.commits.clear()
    await ask(troupe, "third")
    assert not any(commit.at_once for commit in troupe.store.commits)
    monkeypatch.setattr(suspects, "HOLD_S", 0.0)

    async def resting() -> bool:
        activation = troupe.hosts["host-0"]._active.get(A)
        return activation is not None and activation.idle and not activation.inbox.is_open

    await troupe.kill_host("host-0")
    await troupe.start_host("host-0")
    await troupe.client().ask("scribe:a", "fourth", "note")
    await eventually(resting)
    troupe.store.commits.clear()
    await ask(troupe, "fifth")  # the host has lived for long enough
    assert [commit.at_once for commit in troupe.store.commits] == [True]
