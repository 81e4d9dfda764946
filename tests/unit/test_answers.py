"""Answers told inside a process: right, in time, and without asking the store."""

from __future__ import annotations

import asyncio

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.clock import iso
from runtime.errors import DeadLetterError
from runtime.hosting.answers import Answers
from runtime.message import Message
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe

WHERE, ID = "acme/echo:a", "m1"


class Echo(BaseAgent):
    kind = "echo"

    class State(AgentState):
        heard: int = 0

    async def receive_message(self, message: Message) -> object:
        self.state.heard += 1
        return message.content


class CountingStore(MemoryStore):
    """Knows how often an outcome was asked for."""

    asked = 0

    async def outcome(self, agent: str, message_id: str, wait_s: float):
        self.asked += 1
        return await super().outcome(agent, message_id, wait_s)


def message(troupe: LocalTroupe, id: str, content: object) -> Message:
    return Message(
        message_id=id, sender="client:test", recipient="echo:a", message_type="say",
        content=content, timestamp=iso(troupe.clock.now_ms()),
    )  # fmt: skip


@pytest.fixture
async def troupe():
    made = LocalTroupe({})
    made = LocalTroupe({"echo": Echo}, CountingStore(made.clock))
    await made.start()
    yield made
    await made.stop()


async def ask(troupe: LocalTroupe, id: str, content: object) -> bytes:
    host = troupe.hosts["host-0"]
    return await host.ask("acme", "client:test", message(troupe, id, content), WHERE)


async def test_an_agent_that_lives_here_answers_without_the_store(troupe) -> None:
    """Each question would cost the store a call more, and half of what it can do."""
    assert await ask(troupe, "m0", "first") == b'"first"'
    before = troupe.store.asked
    assert await ask(troupe, "m1", {"n": 1}) == b'{"n":1}'
    assert await ask(troupe, "m2", None) == b"null"
    assert troupe.store.asked == before


async def test_a_question_asked_before_is_answered_alike(troupe) -> None:
    """A caller that repeats itself would wait for news that was told already."""
    assert await ask(troupe, "m1", "once") == b'"once"'
    async with asyncio.timeout(5):
        assert await ask(troupe, "m1", "once") == b'"once"'


async def test_everybody_who_waits_is_told_and_nobody_is_kept() -> None:
    """The second of two callers would wait for ever; or the first be remembered for ever."""
    answers = Answers()
    with answers.awaited(WHERE, ID) as one, answers.awaited(WHERE, ID) as other:
        answers.processed(WHERE, "another", b"1")
        assert not one.done()
        answers.processed(WHERE, ID, b"2")
        assert (one.result(), other.result()) == (b"2", b"2")
        answers.dead(WHERE, ID, "too late")
        assert one.result() == b"2"
    assert not answers._awaited


async def test_a_dead_letter_is_an_error() -> None:
    """Giving up would look like an empty answer."""
    answers = Answers()
    with answers.awaited(WHERE, ID) as answer:
        answers.dead(WHERE, ID, "poison")
        with pytest.raises(DeadLetterError, match="poison"):
            answer.result()
