"""The department as a part of a chaos run: issues that are worked on, reviewed and delivered.

People hand in issues one after the other and decide their reviews; the model is
the shipped script's server, in the process that judges.  What came of it is
read where it arrived: in the bare repositories, on the provider's bill, in the
audit trail and in /proc (`arrivals`, `billing`, `department_facts`, `sandboxes`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from actors import audit
from actors.models.prices import SCRIPTED_MODEL
from actors.models.scripted import ScriptedServer
from actors.verification import department_facts as facts
from actors.verification import target
from actors.verification.arrivals import Arrivals, make_repository
from actors.verification.billing import Bill
from actors.verification.department_work import JOB_USD, NAMES, Case, files, script, where
from actors.verification.sandboxes import SandboxWatch
from runtime.client import Client
from runtime.clock import SystemClock
from runtime.cluster.port import free_port
from runtime.ids import HOME, Ids
from runtime.store.contract import Store
from runtime.verify.chaos.live import Live
from runtime.verify.chaos.part import Request

PEOPLE: Final = 3
"""Each has one issue at a time."""
LOOK_S: Final = 0.5
"""Between two looks of a person at an issue."""
ARRIVALS_S: Final = 0.5
SANDBOXES_S: Final = 0.2
ANSWER_TOKENS_MAX: Final = 1_000
"""Of one call, so that what is reserved for it is small beside a budget."""
FLOORS: Final = {
    "delivered": 0.5,
    "modelCalls": 10.0,
    "overBudget": 0.2,
    "hostsLostWithSandboxes": 0.2,
}
"""What a minute must have had at least."""
ENDED: Final = ("completed", "failed")
BUDGET: Final = "budget_cost"


class Department:
    """A `runtime.verify.chaos.part.Part`."""

    agents = target.AGENTS
    application = target.APPLICATION

    def __init__(self) -> None:
        self._script = script()
        self._bill = Bill((self._script,))
        self._server = ScriptedServer((self._script,))
        self._server.calls = self._bill
        self._port = free_port()
        self._root = Path()
        self._arrivals: list[Arrivals] = []
        self._approved: set[str] = set()
        """Hashes of the changes to which a person has said yes."""
        self._cases = count()
        self._outcomes: Counter[str] = Counter()
        self._stopping = False
        self._over = False
        self._watching: list[asyncio.Task[None]] = []
        self._sandboxes: SandboxWatch | None = None
        self._lost = 0

    # The run's calls, see `Part`

    def environment(self, root: Path) -> Mapping[str, str]:
        self._root = root / "repositories"
        return {
            "TROUPE_DATA": str(root / "data"),
            "TROUPE_REPOSITORY_ROOTS": str(self._root),
            "TROUPE_COST_USD_MAX": str(JOB_USD),
            "TROUPE_ANSWER_TOKENS_MAX": str(ANSWER_TOKENS_MAX),
            "TROUPE_MODEL": SCRIPTED_MODEL,
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self._port}",
            "ANTHROPIC_API_KEY": "of-a-script",
        }

    async def begin(self, live: Live, hosts: Callable[[], Collection[int]]) -> None:
        self._live = live
        self._root.mkdir()
        for name in NAMES:
            self._arrivals.append(Arrivals(make_repository(where(self._root, name), files(name))))
        await self._server.start(self._port)
        self._sandboxes = SandboxWatch(hosts)
        self._watching = [
            asyncio.create_task(self._watch_sandboxes(self._sandboxes)),
            asyncio.create_task(self._watch_repositories()),
        ]

    async def work(self, request: Request) -> None:
        await asyncio.gather(*(self._person(request) for _ in range(PEOPLE)))

    def stop(self) -> None:
        self._stopping = True

    def busy(self) -> Collection[int]:
        return self._sandboxes.busy if self._sandboxes else ()

    def missed(self) -> bool:
        return self._lost == 0

    async def tell(self, store: Store) -> None:
        await self._stop_watching()
        await asyncio.to_thread(self._look)
        clock = SystemClock()
        trail = await _trail(Client(store, clock, Ids(clock), HOME))
        ids = facts.jobs(trail)
        facts.tell_approvals(self._live, trail, self._approved)
        for arrivals in self._arrivals:
            facts.tell_effects(self._live, arrivals.seen)
        steps = await _steps(store, ids.values())
        facts.tell_charges(self._live, self._bill.charges, ids, steps)

    async def end(self) -> None:
        await self._stop_watching()
        await self._server.aclose()

    def figure(self) -> Mapping[str, Any]:
        return {"department": dict(self._counts())}

    def short(self, minutes: float) -> list[str]:
        counts = self._counts()
        wanted = {name: int(floor * minutes) for name, floor in FLOORS.items()}
        return [
            f"{name} {counts[name]}, at least {floor} wanted"
            for name, floor in wanted.items()
            if counts[name] < floor
        ]

    def _counts(self) -> Counter[str]:
        return Counter(
            issues=self._outcomes.total(),
            delivered=self._outcomes["delivered"],
            rejected=self._outcomes["rejected"],
            overBudget=self._outcomes[BUDGET],
            otherEnds=sum(
                number
                for outcome, number in self._outcomes.items()
                if outcome not in ("delivered", "rejected", BUDGET)
            ),
            arrived=sum(len(arrivals.seen) for arrivals in self._arrivals),
            modelCalls=len(self._bill.charges),
            hostsLostWithSandboxes=self._lost,
        )

    # People

    async def _person(self, request: Request) -> None:
        while not self._stopping:
            case = Case(next(self._cases))
            facts.tell_budgets(self._live, case.budgets())
            await self._through(request, case)

    async def _through(self, request: Request, case: Case) -> None:
        """From the issue to its end, which may be that nothing came of it."""
        submitted = await request("POST", "/api/issues", case.submission(self._root))
        path = f"/api/issues/{submitted.json()['id']}"
        while True:
            issue = (await request("GET", path, None)).json()
            if issue["status"] in ENDED:
                self._outcomes[issue["resolution"]["outcome"]] += 1
                return
            if issue["status"] == "review":
                await self._decide(request, case, issue)
            await asyncio.sleep(LOOK_S)

    async def _decide(self, request: Request, case: Case, issue: Mapping[str, Any]) -> None:
        if issue.get("reason"):  # triage can't tell what kind of work it is
            answer = {"text": "It is a bug.", "agentType": "code"}
            await request("POST", f"/api/issues/{issue['id']}/messages", answer)
            return
        found = await request("GET", f"/api/reviews?status=pending&issue={issue['id']}", None)
        for review in found.json()["items"]:
            body = {"artifactHash": review["artifactHash"]}
            verb = "approve" if case.wanted else "reject"
            if case.wanted:
                self._approved.add(review["artifactHash"])
            await request("POST", f"/api/reviews/{review['id']}/{verb}", body)

    # The watches

    async def _watch_sandboxes(self, watch: SandboxWatch) -> None:
        while watch.waiting or not self._over:
            at_ns = time.time_ns()
            found = await asyncio.to_thread(watch.look, at_ns // 1_000_000)
            facts.tell_sandboxes(self._live, found, at_ns)
            self._lost += sum(one.f == "kill" for one in found)
            await asyncio.sleep(SANDBOXES_S)

    async def _watch_repositories(self) -> None:
        while not self._over:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(ARRIVALS_S)

    def _look(self) -> None:
        for arrivals in self._arrivals:
            arrivals.look()

    async def _stop_watching(self) -> None:
        self._over = True
        await asyncio.gather(*self._watching)


async def _trail(client: Client) -> list[dict[str, Any]]:
    """The audit trail of an organization."""
    with closing(await audit.gather(client)) as spool:
        return [json.loads(line) async for lines in spool.lines() for line in lines]


async def _steps(store: Store, jobs: Collection[str]) -> dict[tuple[str, str], str]:
    """The key of each step that asked a model, by job and the digest of its request."""
    found = {}
    for job in jobs:
        for step in await store.steps(job):
            with suppress(ValueError, TypeError, KeyError):
                found[job, json.loads(step.intent)["digest"]] = step.key
    return found
