"""The load of a chaos run: clients over HTTP, and a record of what they were promised.

A request is repeated with the same key until it is answered; what is answered
2xx is promised from then on.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from runtime.clock import SystemClock
from runtime.ids import Ids

CLOCK: Final = SystemClock()
ACCOUNTS: Final = 24
BOSSES: Final = 3
TIMEOUT_S: Final = 8.0
RETRY_S: Final = 0.25
PROBE_S: Final = 0.1
PROBE_WAIT_S: Final = 5.0


@dataclass
class Promises:
    """What the API has said."""

    messages: dict[str, str] = field(default_factory=dict)
    """Accepted message -> its recipient."""
    jobs: list[str] = field(default_factory=list)
    """Hired."""
    probes: list[tuple[int, int]] = field(default_factory=list)
    """When an agent was asked and when it answered, milliseconds; one question after another."""
    requests: int = 0
    failures: int = 0
    """Requests that were not answered 2xx; each was repeated."""


class Load:
    """Clients of one organization."""

    def __init__(self, url: str, key: str, chance: random.Random) -> None:
        self.promises = Promises()
        self._chance = chance
        self._ids = Ids(CLOCK, chance.randbytes)
        self._http = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S,
            trust_env=False,
        )  # fmt: skip
        self._stopping = False

    async def run(self, clients: int, pause_s: float) -> None:
        """Work until `stop`; then every request that was begun is finished."""
        await asyncio.gather(self._probe(), *(self._client(pause_s) for _ in range(clients)))

    async def answered(self) -> None:
        """Return when an agent has answered a question that is asked from now on."""
        since_ms = now_ms()
        while True:
            if self.promises.probes and self.promises.probes[-1][0] >= since_ms:
                return
            await asyncio.sleep(PROBE_S)

    def stop(self) -> None:
        self._stopping = True

    async def close(self) -> None:
        await self._http.aclose()

    async def _client(self, pause_s: float) -> None:
        while not self._stopping:
            await (self._hire() if self._chance.random() < 1 / 5 else self._transfer())
            await asyncio.sleep(self._chance.expovariate(1 / pause_s))

    async def _transfer(self) -> None:
        route = [self._account() for _ in range(self._chance.randint(1, 4))]
        content = {"units": self._chance.randint(1, 50), "route": route}
        await self._send(self._account(), "transfer", content)

    async def _hire(self) -> None:
        id = self._ids.new("job")
        steps = [round(self._chance.uniform(0, 2.0), 2) for _ in range(self._chance.randint(1, 6))]
        boss = f"boss:{self._chance.randrange(BOSSES)}"
        await self._send(boss, "hire", {"id": id, "payload": {"steps": steps}})
        self.promises.jobs.append(id)

    def _account(self) -> str:
        return f"account:{self._chance.randrange(ACCOUNTS)}"

    async def _send(self, to: str, kind: str, content: Any) -> None:
        key = self._ids.ulid()
        body = {"messageType": kind, "content": content}
        answer = await self._until_answered(f"/api/agents/{to}/messages", key, body)
        self.promises.messages[answer["messageId"]] = to

    async def _until_answered(self, path: str, key: str, body: Any) -> Any:
        while True:
            self.promises.requests += 1
            try:
                answer = await self._http.post(path, json=body, headers={"Idempotency-Key": key})
                if answer.is_success:
                    return answer.json()
            except httpx2.HTTPError:  # unknown: the same again
                pass
            self.promises.failures += 1
            await asyncio.sleep(RETRY_S)

    async def _probe(self) -> None:
        """Ask one agent again and again, to see when it answers."""
        path = f"/api/agents/account:0/messages?wait={PROBE_WAIT_S:g}"
        body = {"messageType": "read", "content": {}}
        while not self._stopping:
            asked_ms = now_ms()
            try:
                key = {"Idempotency-Key": self._ids.ulid()}
                answer = await self._http.post(path, json=body, headers=key)
                if answer.status_code == httpx2.codes.OK:
                    self.promises.probes.append((asked_ms, now_ms()))
            except httpx2.HTTPError:  # nobody answers: that is what is measured
                pass
            await asyncio.sleep(PROBE_S)


def now_ms() -> int:
    """True time."""
    return CLOCK.now_ms()
