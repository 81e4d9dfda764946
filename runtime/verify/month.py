"""A month of schedules on virtual time: a scheduler that dies, people, and jobs that run.

The planner is production's, over production's group commit and a store that
loses answers.  Its scheduler is killed and comes back, or another takes over
while it still writes; the clock steps; people edit, pause, resume, trigger and
delete; runs take their time, fail and are cancelled.

The queue is played: a job runs as soon as it is admitted, beside any other.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from msgspec.structs import replace

from runtime.client import Client
from runtime.errors import StoreUnavailableError
from runtime.group import GroupCommitter
from runtime.ids import HOME, SCHEDULER, SCHEDULER_AGENT, Ids
from runtime.job import AgentJob, JobStatus
from runtime.jobs.decisions import Decision
from runtime.message import Message
from runtime.patience import patiently
from runtime.plans.book import Queue
from runtime.plans.desk import PlanDesk
from runtime.plans.planner import Planner
from runtime.schedule.record import SCHEDULES, decode_schedule
from runtime.store.contract import (
    Ack,
    Commit,
    Committed,
    Document,
    Fence,
    Put,
    Refused,
    StoredMessage,
)
from runtime.store.memory import MemoryStore
from runtime.verify.dues import DAY_S
from runtime.verify.loop import LoopClock

LOOK_S: Final = 20.0
"""The planner's longest sleep here: a month has many seconds."""
ZONES: Final = (
    "UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata",
    "America/Santiago",
)  # fmt: skip
CADENCES: Final = (
    ("* * * * *", 1), ("*/5 * * * *", 3), ("*/15 * * * *", 6), ("*/30 9-17 * * 1-5", 12),
    ("0 */6 * * *", 40), ("17 * * * *", 20), ("30 2 * * *", 40), ("0 9 * * *", 40),
    ("0 8 * * 1-5", 20), ("0 2 * * 0", 20), ("0 0 L * *", 5),
)  # fmt: skip
"""Expressions and how often each is drawn."""
INTERVALS: Final = ("PT37M", "every 3 hours", "P1D")
START: Final = timedelta(days=350)
"""After the simulation's epoch, 2023-11-14: late October 2024, so clocks change in it."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    schedules: int = 200
    days: int = 30
    outages: int = 40
    edits: int = 60
    pauses: int = 60
    steps: int = 16
    """Of the clock."""
    handovers: int = 10
    """Another scheduler takes over while the old one still writes."""


class Lossy(MemoryStore):
    """A store whose answers to commits get lost, some before and some after it has written."""

    def __init__(self, clock: LoopClock, source: random.Random) -> None:
        super().__init__(clock, source.randbytes)
        self._source = source
        self.lost = 0
        self.calm = False

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        at = 1.0 if self.calm else self._source.random()
        await asyncio.sleep(0.001)
        if at < 0.004:
            self.lost += 1
            raise StoreUnavailableError("lost before")
        answers = await super().commit(commits)
        if at < 0.01:
            self.lost += 1
            raise StoreUnavailableError("lost after")
        return answers

    def everything(self, collection: str) -> list[Document]:
        """All documents of a collection, by key; read beside everything else."""
        found = self._tables.documents.matching(collection, None, ())
        return sorted(found, key=lambda one: one.key)


class FencedOutError(Exception):
    """Another scheduler has taken over."""


class Life:
    """One life of the scheduler: takes over, plans, hears, until it is killed or fenced."""

    def __init__(self, month: Month, number: int) -> None:
        self._month = month
        self.clock = LoopClock(month.loop, month.clock.offset_ms)
        self._owner = f"scheduler/{number}"
        self._fence = Fence("", 0)
        self._group = GroupCommitter(month.store)
        queue = Queue(self._commit, month.admit, month.is_open, lambda: month.paused)
        self.planner = Planner(month.store, self.clock, queue, LOOK_S)
        self._desk = PlanDesk(self.planner, month.ids)
        self.refused = 0

    async def run(self) -> None:
        store = self._month.store
        incarnation = await store.register(self._owner, "scheduler", 1e9)
        [claimed] = await store.claim(self._owner, 1, [SCHEDULER])
        self._fence = Fence(incarnation, claimed.epoch)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self.planner.load()
            await self._hear(claimed.inbox)
            self._month.life = self
            tasks = [
                asyncio.create_task(self.planner.run()),
                asyncio.create_task(self._serve()),
            ]
            await asyncio.gather(*tasks)
        except FencedOutError:
            self._month.counts["fenced"] += 1
        finally:
            for task in tasks:
                task.cancel()
            await self._group.close()

    async def _serve(self) -> None:
        cursor = 0
        while True:
            poll = await self._month.store.poll(self._owner, cursor, 1_000, 3_600.0)
            cursor = poll.cursor
            await self._hear(poll.messages)

    async def _hear(self, messages: Sequence[StoredMessage]) -> None:
        for stored in messages:
            message = Message.from_json(stored.body)
            if self._desk.takes(message):
                await self._desk.handle(stored, message)
            else:
                self._month.command(message)
                await self._commit(Decision(), (Ack(stored.message_id),))

    async def _commit(self, decision: Decision, acks: tuple[Ack, ...] = ()) -> str | None:
        answer = await self._group.commit(decision.commit(self._fence, acks))
        if not isinstance(answer, Refused):
            return None
        if answer.reason in ("stale_epoch", "stale_incarnation"):
            raise FencedOutError
        self._month.counts["refused"] += 1
        return answer.reason


class Month:
    """The world: a store, a scheduler that dies, people, and jobs that run."""

    def __init__(self, seed: int, size: Size) -> None:
        self.size = size
        self.random = random.Random(f"{seed}/schedules")  # noqa: S311 - it must repeat
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(self.loop)
        self.clock.step(START.total_seconds())
        self.store = Lossy(self.clock, random.Random(f"{seed}/store"))  # noqa: S311 - the same
        self.ids = Ids(self.clock, self.random.randbytes)
        self.client = Client(self.store, self.clock, self.ids, HOME, "people")
        self.life: Life | None = None
        """The one that plans; None: none does just now."""
        self.paused = False
        self.counts: Counter[str] = Counter()
        self._open: dict[str, AgentJob] = {}
        self._held: dict[str, asyncio.Event] = {}
        self._life: asyncio.Task[None] | None = None
        self._lives = 0
        self._chores: set[asyncio.Task[None]] = set()
        self.began_ms = self.clock.now_ms()

    # The queue, played

    def admit(self, jobs: Sequence[AgentJob]) -> None:
        for job in jobs:
            if job.status is JobStatus.PAUSED:
                self._held.setdefault(job.id, asyncio.Event())
            elif job.id in self._held:
                self._held.pop(job.id).set()
            else:
                if job.id in self._open:
                    self.counts["admittedTwice"] += 1
                self._open[job.id] = job
                self._chore(self._work(job))

    def is_open(self, job_id: str) -> bool:
        return job_id in self._open

    def command(self, message: Message) -> None:
        """`job.cancel`, as the planner sends it."""
        job = self._open.get(message.content["jobId"])
        if job is not None and message.message_type == "job.cancel":
            self._chore(self._end(job, JobStatus.CANCELLED))

    async def _work(self, job: AgentJob) -> None:
        await asyncio.sleep(max(0, job.not_before_ms - self.clock.now_ms()) / 1000)
        drawn = random.Random(job.id)  # noqa: S311 - the same in every run
        await asyncio.sleep(drawn.choice((2, 20, 20, 90, 400, 4_000)) * drawn.uniform(0.5, 1.5))
        if job.id in self._held:
            await self._held[job.id].wait()
        await self._end(job, JobStatus.FAILED if drawn.random() < 0.004 else JobStatus.COMPLETED)

    async def _end(self, job: AgentJob, status: JobStatus) -> None:
        if self._open.pop(job.id, None) is None:
            return
        ended = replace(job, status=status, cost_usd=0.01)
        put = Put("job", job.id, HOME, ended.to_json())
        await patiently(self.store.commit, [Commit(HOME, puts=(put,))])
        if self.life is not None:
            self.life.planner.about_job(job.id)

    def _chore(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # The scheduler's lives

    def live(self) -> None:
        """A scheduler is started; one that still lives is fenced by it."""
        self._lives += 1
        self._life = asyncio.create_task(Life(self, self._lives).run())

    async def kill(self) -> None:
        assert self._life is not None
        self.life = None
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)

    async def _outage(self) -> None:
        await self.kill()
        self.counts["outages"] += 1
        longest = self.random.choice((20, 20, 50, 600, 7_200, 3 * DAY_S / 2))
        await asyncio.sleep(self.random.uniform(1, longest))
        self.live()

    async def _handover(self) -> None:
        """The old one goes on until the store refuses it."""
        self.counts["handovers"] += 1
        self.live()
        await asyncio.sleep(1)

    async def _step(self) -> None:
        """The clock of everybody moves; by a little, by hours, or by days for a moment."""
        seconds = self.random.choice((-7_200, -600, -20, 20, 200, 5_000, 40 * DAY_S))
        self.counts["clockSteps"] += 1
        self._move(seconds)
        if seconds > DAY_S:
            await asyncio.sleep(LOOK_S)
            self._move(-seconds)

    def _move(self, seconds: float) -> None:
        self.clock.step(seconds)
        if self.life is not None:
            self.life.clock.step(seconds)

    # People

    async def _ask(self, verb: str, **content: Any) -> None:
        self.counts[verb] += 1
        asked = {"by": "people", **content}
        await patiently(self.client.send, SCHEDULER_AGENT, asked, f"schedule.{verb}")

    def _name(self) -> dict[str, str]:
        number = self.random.randrange(self.size.schedules)
        return {"agentId": f"worker:{number}", "name": "default"}

    def _drawn(self) -> dict[str, Any]:
        """Some schedule."""
        drawn = self.random
        if drawn.random() < 0.1:
            when = {"interval": drawn.choice(INTERVALS)}
        else:
            texts, weights = zip(*CADENCES, strict=True)
            when = {"cron": drawn.choices(texts, weights)[0]}
        return {
            **when,
            "timezone": drawn.choice(ZONES),
            "overlap": drawn.choice(
                ("skip", "skip", "queue_one", "queue_all", "cancel_running", "allow")
            ),
            "catchUp": {
                "policy": drawn.choice(("latest", "latest", "none", "all")),
                "windowS": drawn.choice((0, 3_600, DAY_S)),
                "cap": drawn.choice((1, 5, 10)),
            },
            "jitterS": drawn.choice((0, 0, 0, 60)),
        }

    async def _edit(self) -> None:
        name = self._name()
        draw = self.random.random()
        if draw < 0.15:
            await self._ask("delete", **name)
        elif draw < 0.4:
            await self._ask("trigger", **name)
        else:
            await self._ask("set", agentId=name["agentId"], schedule=self._drawn())

    async def _pause(self) -> None:
        draw = self.random.random()
        if draw < 0.1:
            self.paused, self.counts["schedulerPauses"] = True, self.counts["schedulerPauses"] + 1
            await asyncio.sleep(self.random.uniform(60, 20_000))
            self.paused = False
            if self.life is not None:
                self.life.planner.wake()
            return
        name = self._name()
        await self._ask("pause", **name, drain=True)
        self._chore(self._resume_later(name))

    async def _resume_later(self, name: dict[str, str]) -> None:
        await asyncio.sleep(self.random.uniform(60, 2 * DAY_S))
        await self._ask("resume", **name)

    async def _mend(self) -> None:
        """Somebody looks after the schedules in ERROR, once a day."""
        while True:
            await asyncio.sleep(DAY_S)
            for document in self.store.everything(SCHEDULES):
                record = decode_schedule(document.body)
                if record.status == "error":
                    await self._ask("resume", agentId=record.agent_id, name=record.name)

    # The month

    async def go(self) -> None:
        """Everything that happens, then peace until the books can be closed."""
        self.live()
        for number in range(self.size.schedules):
            await self._ask("set", agentId=f"worker:{number}", schedule=self._drawn())
        await asyncio.sleep(60)
        self._chore(self._mend())
        happenings: list[Callable[[], Awaitable[None]]] = []
        happenings += [self._outage] * self.size.outages
        happenings += [self._handover] * self.size.handovers
        happenings += [self._step] * self.size.steps
        happenings += [self._edit] * self.size.edits
        happenings += [self._pause] * self.size.pauses
        self.random.shuffle(happenings)
        until_s = self.loop.time() + self.size.days * DAY_S
        for place, what in enumerate(happenings):
            left = len(happenings) - place
            mean_s = max(0.0, until_s - self.loop.time()) / left
            await asyncio.sleep(self.random.uniform(0, 2 * mean_s))
            await what()
        await asyncio.sleep(max(0.0, until_s - self.loop.time()))
        self.store.calm = True
        await asyncio.sleep(DAY_S / 24)
        await self.kill()
        for chore in list(self._chores):
            chore.cancel()
