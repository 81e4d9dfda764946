"""A client of the test: one call, repeated with the same ids while its outcome is unknown.

It goes through production's `Client`, or through a host as a call to its Ray
actor does, and writes down what it asked and what it was told.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from runtime.client import AskTimeoutError, Client, ConflictError
from runtime.clock import Clock
from runtime.errors import CommitRefusedError, DeadLetterError, StoreUnavailableError
from runtime.ids import SCHEDULER_AGENT, Ids, address
from runtime.jobs.holds import HOLDS, Hold
from runtime.message import Message
from runtime.store.contract import Store
from runtime.verify.history import History

RETRY_S: Final = 0.3
ASK_WAIT_S: Final = 20.0
SIGNAL: Final = "answer"
"""The signal that jobs wait for."""

AskHost = Callable[[str, Message, str, float], Awaitable[bytes]]
"""(organization, message, recipient's address, seconds) -> the answer as JSON."""


class Person(Protocol):
    """Whose calls they are: a process of the simulation, or somebody real."""

    @property
    def name(self) -> str: ...

    @property
    def random(self) -> random.Random: ...

    @property
    def clock(self) -> Clock: ...


class Caller:
    """Calls for one organization."""

    def __init__(
        self,
        organization: str,
        process: Person,
        store: Store,
        history: History,
        ask_host: AskHost,
    ) -> None:
        """Args: ask_host: asks through a host instead of through the store."""
        self.name = process.name
        self.organization = organization
        self.store = store
        self.random = process.random
        self.ids = Ids(process.clock, process.random.randbytes)
        self.client = Client(store, process.clock, self.ids, organization, self.name)
        self._history = history
        self._ask_host = ask_host

    async def repeat(
        self, f: str, call: Callable[[], Awaitable[Any]], record: Any = None, **fields: Any
    ) -> Any:
        """Invoke and write down; `record` makes the fact's value of the answer.

        Returns the answer; None when it was refused.
        """
        fields.setdefault("org", self.organization)
        self._history.add(self.name, "invoke", f, **fields)
        while True:
            try:
                answer = await call()
            except StoreUnavailableError:
                self._history.add(self.name, "info", f, **fields)
                await asyncio.sleep(RETRY_S)
                continue
            except (ConflictError, CommitRefusedError, DeadLetterError, AskTimeoutError) as error:
                fields.setdefault("value", type(error).__name__)
                self._history.add(self.name, "fail", f, **fields)
                return None
            if record is not None:
                fields["value"] = record(answer)
            self._history.add(self.name, "ok", f, **fields)
            return answer

    async def send(self, to: str, content: Any, kind: str) -> None:
        message_id = self.ids.ulid()
        await self.repeat(
            "send",
            lambda: self.client.send(to, content, kind, message_id=message_id),
            agent=address(self.organization, to),
            msg=message_id,
            key=kind,
        )

    async def ask(self, to: str, content: Any, kind: str) -> Any:
        message_id = self.ids.ulid()
        message = self.client.message(to, content, kind, message_id=message_id)
        where = address(self.organization, to)

        async def through_store() -> Any:
            return await self.client.ask(
                to, content, kind, message_id=message_id, wait_s=ASK_WAIT_S
            )

        async def through_host() -> Any:
            return json.loads(await self._ask_host(self.organization, message, where, ASK_WAIT_S))

        return await self.repeat(
            "ask",
            through_host if self.random.random() < 1 / 2 else through_store,
            lambda answer: answer,
            agent=address(self.organization, to),
            msg=message_id,
            key=kind,
        )

    async def control(self, job: str, verb: str) -> None:
        """Tell the scheduler something about a job."""
        content = {"jobId": job}
        if verb == "job.signal":
            content |= {"name": SIGNAL, "content": "yes"}
        message_id = self.ids.ulid()
        await self.repeat(
            "control",
            lambda: self.client.ask(
                SCHEDULER_AGENT, content, verb, message_id=message_id, wait_s=ASK_WAIT_S
            ),
            lambda answer: {"job": job, "answer": answer},
            msg=message_id,
            key=verb,
        )

    async def resume_agent(self, agent: str) -> None:
        """Have an agent's jobs started again, if it is held."""
        hold = await self.client.get(HOLDS, address(self.organization, agent))
        if hold is None or not Hold.model_validate_json(hold.body).held:
            return
        message_id = self.ids.ulid()
        await self.repeat(
            "control",
            lambda: self.client.ask(
                SCHEDULER_AGENT,
                {"agentId": agent},
                "agent.resume",
                message_id=message_id,
                wait_s=ASK_WAIT_S,
            ),
            lambda answer: {"agent": agent, "answer": answer},
            msg=message_id,
            key="agent.resume",
        )

    async def schedule(self, verb: str) -> None:
        """Tell the scheduler something about itself."""
        message_id = self.ids.ulid()
        await self.repeat(
            "schedule",
            lambda: self.client.ask(
                SCHEDULER_AGENT, {}, verb, message_id=message_id, wait_s=ASK_WAIT_S
            ),
            msg=message_id,
            key=verb,
        )
