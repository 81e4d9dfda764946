"""Replies between agents: each question has one answer, and the talk ends."""

from __future__ import annotations

import asyncio

from runtime.agent import AgentState, BaseAgent
from runtime.message import Message
from tests.troupe import LocalTroupe


class Chatty(BaseAgent):
    """Always returns something, and asks another when it is told to."""

    kind = "chatty"

    class State(AgentState):
        heard: list[str] = []  # noqa: RUF012 - pydantic copies defaults

    async def receive_message(self, message: Message) -> object:
        self.state.heard.append(message.message_type)
        if message.message_type == "ask":
            await self.send_message(message.content["whom"], {}, "question")
        if message.message_type == "wake":
            self.remind("soon", after_s=0.0)
        return {"heard": len(self.state.heard)}


async def heard(troupe: LocalTroupe, agent: str, last: str) -> list[str]:
    """What an agent was told, once it has been told `last` and nothing waits for anybody."""
    store = troupe.store
    async with asyncio.timeout(10):
        while True:
            told = [
                Message.from_json(one.body).message_type
                for one in await store.history(f"acme/{agent}", 0, 100)
            ]
            idle = not any([await store.inbox(f"acme/chatty:{key}", 0, 1) for key in "ab"])
            if last in told and idle:
                return told
            assert len(told) < 50, told
            await asyncio.sleep(0.001)


async def test_a_reply_is_not_answered() -> None:
    """Two agents that always return something would talk for ever."""
    troupe = await LocalTroupe({"chatty": Chatty}).start()
    await troupe.client().ask("chatty:a", {"whom": "chatty:b"}, "ask")
    assert await heard(troupe, "chatty:a", "reply") == ["ask", "reply"]
    assert await heard(troupe, "chatty:b", "question") == ["question"]
    await troupe.stop()


async def test_a_reminder_is_not_answered() -> None:
    """An agent would answer itself, and that again."""
    troupe = await LocalTroupe({"chatty": Chatty}).start()
    await troupe.client().ask("chatty:a", {}, "wake")
    assert await heard(troupe, "chatty:a", "reminder") == ["wake", "reminder"]
    await troupe.stop()
