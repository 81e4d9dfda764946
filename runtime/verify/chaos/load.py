"""The load of a chaos run over HTTP: clients, a prober, a follower of the events.

A request is repeated with the same key until it is answered; what is answered
2xx is promised from then on.  What was asked and told becomes facts:

    send, ask    by the API's message id
    submit       the same key once more: the same message id; with another body: refused
    tail         what the stream of events brought, connection by connection
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from runtime.clock import SystemClock
from runtime.ids import HOME, Ids, address
from runtime.verify.chaos.live import Live
from runtime.verify.history import Tailed

CLOCK: Final = SystemClock()
ACCOUNTS: Final = 24
BOSSES: Final = 3
TIMEOUT_S: Final = 8.0
RETRY_S: Final = 0.25
PROBE_S: Final = 0.1
PROBE_WAIT_S: Final = 5.0
AGAIN: Final = 1 / 10
"""How often an answered request is made once more."""
STREAM_S: Final = (1.0, 12.0)
"""How long a connection of the follower lasts."""


@dataclass
class Promises:
    """What the API has said."""

    messages: int = 0
    jobs: list[str] = field(default_factory=list)
    """Hired."""
    probes: list[tuple[int, int]] = field(default_factory=list)
    """When an agent was asked and when it answered, milliseconds; one question after another."""
    requests: int = 0
    failures: int = 0
    """Requests that were not answered 2xx; each was repeated."""


class Load:
    """Clients of the organization that the installation belongs to."""

    def __init__(self, url: str, key: str, chance: random.Random, live: Live) -> None:
        self.promises = Promises()
        self._chance = chance
        self._live = live
        self._ids = Ids(CLOCK, chance.randbytes)
        self._http = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S,
            trust_env=False,
        )  # fmt: skip
        self._stopping = False

    async def run(self, clients: int, pause_s: float) -> None:
        """Work until `stop`; then every request that was begun is finished."""
        await asyncio.gather(
            self._probe(), self._follow(),
            *(self._client(f"client-http#{number}", pause_s) for number in range(clients)),
        )  # fmt: skip

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

    async def request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """Make a request until it is answered 2xx; what is to be deleted may be gone already."""
        return await self._until_answered(method, path, self._ids.ulid(), body)

    async def _client(self, name: str, pause_s: float) -> None:
        while not self._stopping:
            await (self._hire(name) if self._chance.random() < 1 / 5 else self._transfer(name))
            await asyncio.sleep(self._chance.expovariate(1 / pause_s))

    async def _transfer(self, name: str) -> None:
        route = [self._account() for _ in range(self._chance.randint(1, 4))]
        content = {"units": self._chance.randint(1, 50), "route": route}
        await self._send(name, self._account(), "transfer", content)

    async def _hire(self, name: str) -> None:
        id = self._ids.new("job")
        steps = [self._step(number) for number in range(self._chance.randint(1, 6))]
        payload = {"steps": steps, "hopeless": False, "artifact": None}
        boss = f"boss:{self._chance.randrange(BOSSES)}"
        content = {"id": id, "agent_type": "worker", "payload": payload}
        await self._send(name, boss, "hire", content)
        self.promises.jobs.append(id)

    def _step(self, number: int) -> dict[str, Any]:
        return {
            "key": f"s{number}", "kind": "external", "fails": 0, "asks": False, "costUsd": 0.25,
            "takesS": round(self._chance.uniform(0, 2.0), 2), "waitsFor": None, "dawdlesS": 0.0,
            "restsS": 0.0,
        }  # fmt: skip

    def _account(self) -> str:
        return f"account:{self._chance.randrange(ACCOUNTS)}"

    async def _send(self, name: str, to: str, kind: str, content: Any) -> None:
        key = self._ids.ulid()
        body = {"messageType": kind, "content": content}
        where = address(HOME, to)
        self._live.add(name, "invoke", "send", org=HOME, agent=where, key=kind)
        path = f"/api/agents/{to}/messages"
        message_id = await self._sent(path, key, body)
        self._live.add(name, "ok", "send", org=HOME, agent=where, key=kind, msg=message_id)
        self.promises.messages += 1
        if self._chance.random() < AGAIN:
            self._submitted(name, key, body, message_id)
            self._submitted(name, key, body, await self._sent(path, key, body))
            await self._another(name, path, key, {**body, "content": {**content, "more": 1}})

    def _submitted(self, name: str, key: str, body: Any, message_id: str) -> None:
        value = {"body": str(body), "result": message_id}
        self._live.add(name, "ok", "submit", org=HOME, key=key, value=value)

    async def _sent(self, path: str, key: str, body: Any) -> str:
        return str((await self._until_answered("POST", path, key, body)).json()["messageId"])

    async def _until_answered(self, method: str, path: str, key: str, body: Any) -> Any:
        while True:
            answer = await self._ask(method, path, key, body)
            if answer is not None and (answer.is_success or _is_gone(method, answer)):
                return answer
            self.promises.failures += 1
            await asyncio.sleep(RETRY_S)

    async def _another(self, name: str, path: str, key: str, body: Any) -> None:
        """The same key with another body must be refused."""
        answer = await self._ask("POST", path, key, body)
        if answer is not None and answer.is_success:
            self._submitted(name, key, body, str(answer.json()["messageId"]))

    async def _ask(self, method: str, path: str, key: str, body: Any) -> Any:
        """The answer; None: whether it was accepted is unknown."""
        self.promises.requests += 1
        headers = {"Idempotency-Key": key}
        try:
            return await self._http.request(method, path, json=body, headers=headers)
        except httpx2.HTTPError:
            return None

    # Questions

    async def _probe(self) -> None:
        """Ask one agent again and again, to see when it answers."""
        to = "account:0"
        path = f"/api/agents/{to}/messages?wait={PROBE_WAIT_S:g}"
        body = {"messageType": "read", "content": {}}
        while not self._stopping:
            asked_ms = now_ms()
            answer = await self._ask("POST", path, self._ids.ulid(), body)
            if answer is not None and answer.status_code == httpx2.codes.OK:
                self.promises.probes.append((asked_ms, now_ms()))
                told = answer.json()
                self._live.add(
                    "client-prober", "ok", "ask", org=HOME, agent=address(HOME, to),
                    msg=told["messageId"], key="read", value=told["reply"],
                )  # fmt: skip
            await asyncio.sleep(PROBE_S)

    # Events

    async def _follow(self) -> None:
        """Follow the events as a client that loses its connection again and again."""
        number, place = 0, ""
        while not self._stopping:
            mine, after = number, int(place.rpartition(":")[2] or 0)
            tailed = Tailed(after, "", (), after, False, len(self._live.facts))
            try:
                async with asyncio.timeout(self._chance.uniform(*STREAM_S)):
                    async for event, id in self._events(place):
                        if event == "reset" or not place:  # from the beginning, as somebody new
                            number, place = number + 1, id.rpartition(":")[0] + ":0"
                            break
                        place, tailed.cursor = id, int(id.rpartition(":")[2])
                        if event:
                            tailed.cursors = (*tailed.cursors, tailed.cursor)
            except (TimeoutError, httpx2.HTTPError):
                pass
            if mine and tailed.cursor > tailed.after:
                name = f"subscriber#{mine}"
                self._live.add(name, "ok", "tail", org=HOME, key=name, value=tailed)
            await asyncio.sleep(PROBE_S)

    async def _events(self, place: str) -> AsyncIterator[tuple[str, str]]:
        """(name of an event of this organization, or nothing; id) of each whole block."""
        headers = {"Last-Event-ID": place} if place else {}
        async with self._http.stream("GET", "/api/events", headers=headers) as stream:
            if not stream.is_success:
                return
            block: dict[str, str] = {}
            async for line in stream.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    block[name] = value
                    continue
                if "id" in block:
                    data = json.loads(block.get("data", "{}"))
                    common = data.get("organizationId", HOME) != HOME
                    yield "" if common else block.get("event", ""), block["id"]
                block = {}


def _is_gone(method: str, answer: Any) -> bool:
    return method == "DELETE" and bool(answer.status_code == httpx2.codes.NOT_FOUND)


def now_ms() -> int:
    """True time."""
    return CLOCK.now_ms()
