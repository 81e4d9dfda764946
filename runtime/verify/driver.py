"""The test's own clients: what they ask for, and what they were told.

Each driver works for one organization, one action after another.  What it
writes into the history (through `caller`):

    f          key               value
    send       message type                                     msg: accepted for agent
    ask        message type      answer                         answered
    control    job.cancel, ...   {"job", "answer"}              the scheduler's word
    submit     idempotency key   {"body", "result"}             fail: conflict
    write      document          text, None: deleted
    read       document          text, None: absent
    look       what              canaries found in what was shown
    cross      what              of another organization: must fail

A canary is a word that only one organization's data carries.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from runtime.client import ConflictError, Write, expect_absent
from runtime.errors import CommitRefusedError
from runtime.ids import HOME, SCHEDULER_AGENT
from runtime.job import AgentJob, JobStatus
from runtime.registry import Registry
from runtime.store.contract import Commit, Refused, Send, Store
from runtime.turn import to_json
from runtime.verify.caller import ASK_WAIT_S, SIGNAL, AskHost, Caller, Person
from runtime.verify.history import History

ACCOUNTS: Final = 6
"""An organization."""
BOSSES: Final = 2
_CANARY = re.compile(rb"canary-[a-z]+")

KINDS: Final = ("pure", "workspace", "external")
PRIORITIES: Final = ("critical", "high", "normal", "normal", "low")
CONTROLS: Final = (
    "job.cancel", "job.pause", "job.pause", "job.resume", "job.resume", "job.retry",
    "job.signal", "job.signal", "job.signal",
)  # fmt: skip


def canary(organization: str) -> str:
    return f"canary-{organization}"


class Driver(Caller):
    """One client at work; `await run()` until told to stop."""

    def __init__(
        self,
        organization: str,
        others: list[str],
        process: Person,
        store: Store,
        history: History,
        ask_host: AskHost,
    ) -> None:
        super().__init__(organization, process, store, history, ask_host)
        self.stopping = False
        self.jobs: list[str] = []
        self._others = others
        self._registry = Registry(store, process.clock, organization)
        self._reminder: tuple[str, str] | None = None
        """Account and key of the reminder set last."""

    async def run(self, pause_s: float) -> None:
        """Act, with pauses of this mean between two acts, until stopped."""
        acts = self._acts()
        names, weights = list(acts), [weight for weight, _ in acts.values()]
        while not self.stopping:
            await asyncio.sleep(self.random.expovariate(1 / pause_s))
            [chosen] = self.random.choices(names, weights)
            await acts[chosen][1]()

    def _acts(self) -> dict[str, tuple[int, Callable[[], Awaitable[None]]]]:
        return {
            "transfer": (30, self._transfer),
            "balance": (14, self._balance),
            "remind": (8, self._remind),
            "broadcast": (2, self._broadcast),
            "save": (4, self._save),
            "poison": (2, self._poison),
            "ghost": (1, self._ghost),
            "hire": (9, self._hire),
            "control": (14, self._control),
            "hold": (3, self._hold),
            "pause": (2 if self.organization == HOME else 0, self._pause_all),
            "document": (8, self._document),
            "content": (2, self._content),
            "submit": (4, self._submit),
            "service": (4, self._service),
            "look": (4, self._look),
            "cross": (4, self._cross),
        }

    def _account(self) -> str:
        return f"account:{self.random.randrange(ACCOUNTS)}"

    # Accounts

    async def _transfer(self) -> None:
        route = [self._account() for _ in range(self.random.randint(1, 3))]
        content = {"units": self.random.randint(1, 30), "route": route}
        await self.send(self._account(), content, "transfer")

    async def _balance(self) -> None:
        await self.ask(self._account(), {}, "read")

    async def _remind(self) -> None:
        """Set a reminder, or cancel the one set last."""
        if self._reminder is not None and self.random.random() < 1 / 3:
            account, key = self._reminder
            self._reminder = None
            await self.send(account, {"key": key}, "forget")
            return
        key = f"k{self.random.randrange(4)}"
        self._reminder = (self._account(), key)
        content = {
            "key": key,
            "afterS": round(self.random.uniform(0.1, 15.0), 3),
            "canary": canary(self.organization),
        }
        await self.send(self._reminder[0], content, "remind")

    async def _broadcast(self) -> None:
        await self.send(self._account(), {"text": canary(self.organization)}, "tell_all")

    async def _save(self) -> None:
        await self.send(self._account(), {}, "save")

    async def _poison(self) -> None:
        await self.send(self._account(), {}, "poison")

    async def _ghost(self) -> None:
        await self.send(f"ghost:{self.random.randrange(9)}", {}, "boo")

    # Jobs

    async def _hire(self) -> None:
        job = self.ids.new("job")
        payload: dict[str, Any] = {
            "steps": [self._step(number) for number in range(self.random.randint(1, 5))],
            "hopeless": self.random.random() < 1 / 12,
            "artifact": f"{canary(self.organization)} {job}"
            if self.random.random() < 1 / 3
            else None,
        }
        content: dict[str, Any] = {
            "id": job,
            "agent_type": "worker",
            "payload": payload,
            "priority": self.random.choice(PRIORITIES),
        }
        if self.random.random() < 1 / 4:  # several jobs of one agent
            content["agent_id"] = f"worker:shared{self.random.randrange(2)}"
        self.jobs.append(job)
        await self.send(f"boss:{self.random.randrange(BOSSES)}", content, "hire")

    async def rush(self, jobs: int) -> None:
        """Hire so many for nothing, one after the other, that there is a queue."""
        payload = {"steps": [], "hopeless": False, "artifact": None}
        for _ in range(jobs):
            job = {"id": self.ids.new("job"), "agent_type": "worker", "payload": payload}
            await self.send(f"boss:{self.random.randrange(BOSSES)}", job, "hire")

    def _step(self, number: int) -> dict[str, Any]:
        chance = self.random.random
        return {
            "key": f"s{number}",
            "kind": self.random.choice(KINDS),
            "takesS": round(self.random.uniform(0.0, 2.5), 3) if chance() < 2 / 3 else 0.0,
            "fails": self.random.randint(1, 5) if chance() < 1 / 12 else 0,
            "asks": chance() < 1 / 2,
            "costUsd": 0.25,
            "waitsFor": SIGNAL if chance() < 1 / 7 else None,
            "dawdlesS": round(self.random.uniform(0.0, 2.0), 3),
            "restsS": round(self.random.uniform(0.5, 5.0), 3) if chance() < 1 / 10 else 0.0,
        }

    async def _control(self) -> None:
        """Half of the time of a job that is at work: what it is told meets what it does."""
        jobs = await self._at_work() if self.random.random() < 1 / 2 else []
        if jobs := jobs or self.jobs[-8:]:
            await self.control(self.random.choice(jobs), self.random.choice(CONTROLS))

    async def _hold(self) -> None:
        """Have the agent of a job's own held, or let go on."""
        if self.jobs:
            about = {"agentId": f"worker:{self.random.choice(self.jobs[-8:])}"}
            kind = self.random.choice(("agent.pause", "agent.resume"))
            await self.send(SCHEDULER_AGENT, about, kind)

    async def _at_work(self) -> list[str]:
        running = {"status": JobStatus.RUNNING.value}
        found = await self.repeat("at_work", lambda: self.client.list("job", running))
        return [document.key for document in found]

    async def _pause_all(self) -> None:
        await self.schedule("scheduler.pause")
        await asyncio.sleep(self.random.uniform(0.5, 8.0))
        await self.schedule("scheduler.resume")

    # Documents: this driver is the only writer of its keys

    async def _document(self) -> None:
        key = f"{self.name}-{self.random.randrange(4)}"
        if self.random.random() < 1 / 2:
            await self._read(key)
            return
        text = (
            None
            if self.random.random() < 1 / 4
            else f"{canary(self.organization)} {key} {self.ids.ulid()}"
        )
        body = text.encode() if text is not None else None
        await self.repeat(
            "write",
            lambda: self.client.commit(writes=[Write("note", key, body, {"by": self.name})]),
            key=key,
            value=text,
        )
        await self._read(key)

    async def _read(self, key: str) -> None:
        def text(document: Any) -> str | None:
            return document.body.decode() if document is not None else None

        await self.repeat("read", lambda: self.client.get("note", key), text, key=key)

    async def _content(self) -> None:
        body = f"{canary(self.organization)} {self.ids.ulid()}".encode()
        key = f"content-{self.ids.ulid()}"
        text = body.decode()
        digest = await self.repeat(
            "write", lambda: self.client.put_content(body), key=key, value=text
        )
        await self.repeat(
            "read",
            lambda: self.client.get_content(digest),
            lambda found: found.decode() if found is not None else None,
            key=key,
        )

    async def _submit(self) -> None:
        """The same key twice at once, now and then with another body."""
        key = f"{self.organization}-{self.ids.ulid()}"
        bodies = ["a", "a" if self.random.random() < 2 / 3 else "b"]
        await asyncio.gather(*(self._submit_one(key, body) for body in bodies))

    async def _submit_one(self, key: str, body: str) -> None:
        result = self.ids.new("result")
        record = to_json({"body": body, "result": result})

        async def submit() -> dict[str, Any] | None:
            try:
                await self.client.send(
                    self._account(),
                    {},
                    "note",
                    message_id=f"submitted:{key}",
                    writes=[expect_absent("submitted", key, record)],
                )
            except ConflictError:
                found = await self.client.get("submitted", key)
                assert found is not None
                known: dict[str, Any] = json.loads(found.body)
                if known["body"] != body:
                    raise
                return known
            return {"body": body, "result": result}

        await self.repeat("submit", submit, lambda known: known, key=key, value=None)

    async def _service(self) -> None:
        name = f"{self.name.replace('#', '-')}-{self.random.randrange(3)}"
        version = self.ids.ulid()
        metadata = {"version": version, "canary": canary(self.organization)}
        await self.repeat(
            "write",
            lambda: self._registry.register_service(name, metadata, {"main": "agent"}),
            key=f"service-{name}",
            value=version,
        )
        await self.repeat(
            "read",
            lambda: self._registry.discover_service({"serviceId": name}),
            lambda found: found[0].metadata["version"] if found else None,
            key=f"service-{name}",
        )

    # What one sees, and what one must not

    async def _look(self) -> None:
        collection = self.random.choice(("job", "note", "dead_letter", "agent", "submitted"))

        def canaries(found: Any) -> list[str]:
            text = b"".join(document.body for document in found)
            return sorted({word.decode() for word in _CANARY.findall(text)})

        await self.repeat(
            "look", lambda: self.client.list(collection, limit=1000), canaries, key=collection
        )

    async def _cross(self) -> None:
        """Try to reach another organization: by its job, its document (twice), its agent."""
        other = self.random.choice(self._others)
        match self.random.randrange(4):
            case 0:
                await self.repeat("cross", lambda: self._cancel_of(other), key="cancel")
            case 1:
                await self.repeat("cross", lambda: self._document_of(other), key="document")
            case 2:
                await self.repeat("cross", lambda: self._write_to(other), key="write")
            case _:
                await self.repeat("cross", lambda: self._send_to(other), key="send")

    async def _cancel_of(self, other: str) -> None:
        theirs = await self.store.list_documents("job", other, limit=1)
        if not theirs:
            raise ConflictError("nothing there")
        answer = await self.client.ask(
            SCHEDULER_AGENT, {"jobId": theirs[0].key}, "job.cancel", wait_s=ASK_WAIT_S
        )
        if answer["ok"] is not True:
            raise ConflictError(answer["code"])

    async def _document_of(self, other: str) -> None:
        theirs = await self.store.list_documents("note", other, limit=1)
        if not theirs or await self.client.get("note", theirs[0].key) is None:
            raise ConflictError("not there")

    async def _write_to(self, other: str) -> None:
        theirs = await self.store.list_documents("note", other, limit=1)
        if not theirs:
            raise ConflictError("nothing there")
        body = canary(self.organization).encode()
        await self.client.commit(writes=[Write("note", theirs[0].key, body, {})])

    async def _send_to(self, other: str) -> None:
        sender, target = f"{self.organization}/client:{self.name}", f"{other}/account:0"
        send = Send(self.ids.ulid(), sender, target, b"{}")
        [answer] = await self.store.commit([Commit(self.organization, sends=(send,))])
        if isinstance(answer, Refused):
            raise CommitRefusedError(answer.reason)

    # The end

    async def settle(self) -> list[str]:
        """Let every job of this organization come to its end; the ones that have not."""
        open_jobs = []
        for document in await self._all_jobs():
            record = AgentJob.from_json(document.body)
            if record.status.final:
                continue
            open_jobs.append(record.id)
            if record.status is JobStatus.WAITING and record.reason == "question":
                await self._answer_once(record.id)
            elif record.status is JobStatus.PAUSED:
                await self.control(record.id, "job.resume")
            else:  # also a job whose wait is over says that it waits
                await self.resume_agent(record.agent)
        return open_jobs

    async def _answer_once(self, job: str) -> None:
        """Nobody answers twice: a job that waits for what is there waits for ever."""
        if await self.client.get("signal", f"{job}/{SIGNAL}") is None:
            await self.control(job, "job.signal")

    async def _all_jobs(self) -> list[Any]:
        found: list[Any] = []
        after: str | None = None
        while page := await self.client.list("job", after=after, limit=500, descending=False):
            found += page
            after = page[-1].key
        return found
