"""One agent's turns without a host: messages in, and what each turn's commit would write."""

from __future__ import annotations

import json
import random
from typing import Any

from runtime.agent import BaseAgent
from runtime.clock import ManualClock, iso
from runtime.ids import Ids
from runtime.journal import State
from runtime.message import Message
from runtime.store.contract import ABSENT, Commit, Fence, Store
from runtime.store.memory import MemoryStore
from runtime.turn import Place, Turn

ORGANIZATION = "acme"


class Turns:
    """Delivers messages and keeps what was committed; a raising turn commits nothing."""

    def __init__(self, agent: BaseAgent) -> None:
        self.agent = agent
        self.clock = ManualClock()
        self.documents: dict[tuple[str, str], bytes] = {}
        self.sent: list[Message] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.commits: list[Commit] = []
        self._ids = Ids(self.clock, random.Random(1).randbytes)
        self._place = _Alone(self)

    async def deliver(self, message_type: str, content: Any, sender: str = "client:http") -> Any:
        """Handle one message and commit; the state goes through JSON, as in the journal."""
        turn = Turn(self._place)
        self.agent.context = turn
        message = Message(
            message_id=self._ids.ulid(),
            sender=sender,
            recipient=self.agent.agent_id,
            message_type=message_type,
            content=json.loads(json.dumps(content)),
            timestamp=iso(self.clock.now_ms()),
        )
        reply = await self.agent.receive_message(message)
        self._commit(turn)
        dumped = self.agent.state.model_dump(mode="json")
        self.agent.state = self.agent.State.model_validate(dumped)
        self.clock.advance(1)
        return reply

    def _commit(self, turn: Turn) -> None:
        commit = turn.commit(Fence("incarnation", 1), 0, (), None, None)
        self.commits.append(commit)
        for put in commit.puts:
            key = (put.collection, put.key)
            assert put.expect != ABSENT or key not in self.documents, f"{key} is there already"
            if put.body is not None:
                self.documents[key] = put.body
        self.sent += [Message.from_json(send.body) for send in commit.sends]
        self.events += [(event.event, json.loads(event.body)) for event in commit.feed]

    def document(self, collection: str, key: str) -> dict[str, Any]:
        """A document as the API would read it."""
        return json.loads(self.documents[collection, key])

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs enqueued so far, in order."""
        return [json.loads(body) for (name, _), body in self.documents.items() if name == "job"]

    def messages(self, message_type: str) -> list[Message]:
        return [message for message in self.sent if message.message_type == message_type]


class _Alone(Place):
    """No store behind it: what was put is what can be read, and there is no past."""

    def __init__(self, turns: Turns) -> None:
        where = f"{ORGANIZATION}/{turns.agent.agent_id}"
        super().__init__(where, _NoPast(), turns.clock, turns._ids, MemoryStore(turns.clock))
        self._turns = turns

    async def get(self, collection: str, key: str) -> bytes | None:
        return self._turns.documents.get((collection, key))


class _NoPast:
    async def at(self, version: int | None, store: Store) -> State:
        return {}
