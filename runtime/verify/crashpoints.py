"""Crash points: one reference job, killed before and after everything that is durable.

A first run without a kill passes its boundaries: around each write of a host or
the scheduler to the store, and around each call to the outside.  Then, for each
boundary, the same run begins anew, and the process that stands there dies just
there and is started again.  Everything must end as in the first run, and no
recorded step may have been begun again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from runtime.client import Client
from runtime.ids import HOME, Ids
from runtime.job import AgentJob
from runtime.journal import apply, decode
from runtime.verify import network
from runtime.verify.history import Violation
from runtime.verify.invariants import violations
from runtime.verify.invariants.reading import stored_agents
from runtime.verify.loop import run
from runtime.verify.process import Process
from runtime.verify.reader import read_everything
from runtime.verify.report import Outcome
from runtime.verify.simulate import silenced
from runtime.verify.world import Plan, World

PLAN: Final = Plan(trouble_s=0.0, faults=network.CALM, hosts=2)
AGAIN_S: Final = 0.5
"""After which a process that died is there again."""
WATCHED: Final = ("host", "scheduler")
END_S: Final = 120.0
"""Virtual seconds within which everything has come to its end."""
JOB: Final = "job_reference"


def _step(key: str, kind: str, **more: Any) -> dict[str, Any]:
    plain = {"takesS": 0.02, "fails": 0, "asks": False, "costUsd": 0.25}
    waiting = {"waitsFor": None, "dawdlesS": 0.0, "restsS": 0.0}
    return {"key": key, "kind": kind, **plain, **waiting, **more}


STEPS: Final = (
    _step("plan", "pure"),
    _step("edit", "workspace"),
    _step("test", "pure"),
    _step("push", "external", asks=True),
    _step("wait", "pure", restsS=5.0),
    _step("report", "external"),
    _step("last", "workspace"),
)


@dataclass
class Boundaries:
    """Counts the boundaries of a run, and kills who stands at one of them."""

    world: World
    kill_at: int = 0
    """Number of the boundary, from 1; 0: nobody is killed."""
    passed: list[str] = field(default_factory=list)
    killed: str = ""

    def __call__(self, process: Process, what: str) -> None:
        if not process.name.startswith(WATCHED) or self.killed or not process.alive:
            return
        self.passed.append(what)
        if len(self.passed) == self.kill_at:
            self.killed = f"{process.name} {what}"
            self.world.history.add("nemesis", "info", "kill", key=process.name, value=what)
            process.kill()
            name = process.name.partition("#")[0]
            again = self.world.start_scheduler if name == "scheduler" else None
            self.world.network.later(AGAIN_S, again or (lambda: self.world.start_host(name)))


@dataclass
class Ended:
    """What a run left behind."""

    passed: list[str]
    killed: str
    state: dict[str, Any]
    violations: list[Violation]
    calls: int


async def _run(kill_at: int) -> Ended:
    world = World("crashpoints", PLAN)
    world.outside.numbered = False
    boundaries = Boundaries(world, kill_at)
    world.network.boundary = world.outside.boundary = boundaries
    try:
        for number in range(PLAN.hosts):
            world.start_host(f"host-{number}")
        world.start_scheduler()
        world.calm()
        await _work(world)
        await world.stop()
        await read_everything(world.store, world.history)
        state = await _state(world)
    finally:
        world.end()
    facts = world.history.facts
    return Ended(
        boundaries.passed, boundaries.killed, state, violations(facts), world.outside.total
    )


async def _work(world: World) -> None:
    """Units on their way through three accounts, and one job; until nothing is left to do."""
    process = world.process("client")
    ids = Ids(process.clock, process.random.randbytes)
    client = Client(world.network.connect(process), process.clock, ids, HOME, process.name)
    route = ["account:1", "account:2", "account:0"]
    await client.send("account:0", {"units": 7, "route": route}, "transfer")
    payload = {"steps": list(STEPS), "hopeless": False, "artifact": "notes"}
    await client.send("boss:0", {"id": JOB, "agent_type": "worker", "payload": payload}, "hire")
    deadline_s = world.loop.time() + END_S
    while world.loop.time() < deadline_s:
        await asyncio.sleep(0.5)
        document = await world.store.get("job", JOB)
        final = document is not None and AgentJob.from_json(document.body).status.final
        if final and not await world.pending():
            world.history.add("world", "ok", "drained")
            return


async def _state(world: World) -> dict[str, Any]:
    """What must not depend on who died when: no times, no epochs, no random ids."""
    store = world.store
    agents: dict[str, Any] = {}
    messages: Counter[str] = Counter()
    for fact, stored in stored_agents(world.history.facts):
        state: Any = {}
        for event in stored.journal:
            state = apply(state, decode(event.body).patch)
        agents[fact.agent] = state
        for one in stored.messages:
            kind = json.loads(one.body)["messageType"]
            messages[f"{fact.agent} {kind} {one.status}"] += 1
    document = await store.get("job", JOB)
    record = json.loads(document.body) if document is not None else {}
    kept = ("status", "attempts", "progress", "reason", "costUsd", "tokens")
    results = {step.key: step.result for step in await store.steps(JOB)}
    rest = f"{STEPS[4]['key']}-rest"
    return {
        "agents": agents,
        "messages": dict(messages),
        "job": {name: record.get(name) for name in kept},
        "answer": record.get("result", {}).get("data"),
        "steps": {key: body for key, body in results.items() if key != rest},
        "letters": [one.key for one in await store.list_documents("dead_letter")],
        "artifacts": [one.key for one in await store.list_documents("artifact")],
        "content": len(await store.list_documents("content")),
    }


def crashpoints() -> Outcome:
    """Kill at every boundary, one after the other."""
    began = time.monotonic()
    with silenced():
        first = run(_run(0))
        ends = [run(_run(number)) for number in range(1, len(first.passed) + 1)]
    differ = [end for end in ends if end.state != first.state]
    again = [one for end in ends for one in end.violations if one.rule == "I11"]
    broken = [end for end in (first, *ends) if end.violations]
    figure = {
        "boundaries": len(first.passed),
        "kinds": dict(Counter(first.passed)),
        "kills": sum(bool(end.killed) for end in ends),
        "sameEnd": len(ends) - len(differ),
        "recordedStepsBegunAgain": len(again),
        "violations": sum(len(end.violations) for end in broken),
        "outsideCalls": sum(end.calls for end in ends),
        "outsideRepeated": sum(end.calls - first.calls for end in ends),
        "seconds": round(time.monotonic() - began, 1),
    }
    good = bool(ends) and not differ and not broken and figure["kills"] == len(ends)
    sentence = (
        f"{figure['kills']} kills at {figure['boundaries']} boundaries: {figure['sameEnd']} ended "
        f"as the undisturbed run, {len(again)} recorded steps were begun again, "
        f"{figure['outsideRepeated']} outside calls were made a second time."
    )
    details = [f"{end.killed}: {_difference(first.state, end.state)}" for end in differ]
    details += [f"{end.killed}: {end.violations[0].text}" for end in broken]
    return Outcome(figure, sentence, good, details)


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    parts = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    return str(parts)[:500]
