"""Milliseconds that Troupe adds to a round of the agent loop, on 5,000 files.

    nice -n -10 python -m tests.benchmarks.bench_rounds [ROUNDS]

One code job walks through rounds of four kinds: `edit` and `bash` change the
tree, `read` does not, `none` calls no tool.  Added is what passes from the end
of a model call to the beginning of the next: recording the answer, intent,
tool in the sandbox, snapshot, delta, result.  All is as in production but Ray:
store and model are processes of their own, SQLite with `synchronous=FULL`.
`floor` is what nobody could do without, measured in the same run: the bare
model call over HTTP, bubblewrap alone, git alone on the same tree.  `cpuMs` is
the processor's time for a round: on a busy machine it says more than the wall's.
Prints one line of JSON; only the ratios mean something on another machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF
from typing import Any

import httpx2

from actors.department import kinds_with
from actors.models.client import ModelClient
from actors.models.request import ModelAnswer, ModelRequest
from actors.models.settings import ModelSettings
from actors.models.wire import to_wire
from actors.services import Services
from actors.settings import DepartmentSettings
from runtime.agent import job_terms
from runtime.client import Write
from runtime.clock import SystemClock
from runtime.job import AgentJob, JobConfig
from runtime.store.remote import RemoteStore
from tests.agents import assignment, compatible, repository, use
from tests.scripted import one_scene, scripted_process
from tests.store_process import StoreProcess
from tests.troupe import LocalTroupe
from tests.workshop import SANDBOX

FILES = 5_000
FILES_A_DIRECTORY = 50
LINES = 40
"""Of a file: about 2 KB."""
ROUNDS = 30
"""Of each kind."""
WARM_UP = 2
"""First rounds of each kind that do not count: the workspace opens, the helper starts."""
KINDS = ("edit", "bash", "read", "none")
TARGETS_MS = {"edit": 60.0, "bash": 60.0, "read": 15.0, "none": 15.0}
WITHIN_S = 300.0
LOOK_S = 0.5
"""Between two looks at the job: looking is work, too, and is not to be measured."""
GENEROUS = JobConfig(
    rounds_max=10_000, tokens_max=1_000_000_000, cost_usd_max=1e6, timeout_s=86_400
)
BWRAP = ("--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr",
         "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc",
         "--dev", "/dev", "/usr/bin/true")  # fmt: skip

Json = dict[str, Any]


def path_of(number: int) -> str:
    return f"part{number // FILES_A_DIRECTORY:03}/module{number:04}.py"


def generated() -> dict[str, str]:
    """5,000 files that look like code, the same ones every time."""
    words = random.Random(5)
    return {
        path_of(number): f"NUMBER = {number}\n"
        + "".join(f"value_{line} = {words.getrandbits(160)}\n" for line in range(LINES))
        for number in range(FILES)
    }


def turns(rounds: int) -> list[Json]:
    """What the model asks for; no two calls are the same, so that nobody is stuck."""
    asked: list[Json] = []
    for number in range(rounds):
        one, other = path_of(number * 7), path_of(number * 7 + 3)
        asked += [
            use("edit", path=one, old_string=f"NUMBER = {number * 7}", new_string="NUMBER = 1"),
            use("bash", command=f"echo '# {number}' >> {other}"),
            use("read", path=path_of(number * 7 + 5)),
            {"text": f"I think about it, {number}."},
        ]
    done = use("finish", summary="Done.", confidence="high", tests_run=[])
    return [*asked, done, done]


class Watched(ModelClient):
    """The model client, with the moments of its calls and the last request."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings, SystemClock(), random.random)
        self.calls: list[tuple[Moment, Moment]] = []
        self.request: ModelRequest | None = None

    async def complete(self, request: ModelRequest, budget_usd: float | None = None) -> ModelAnswer:
        began = Moment.now()
        answer = await super().complete(request, budget_usd)
        self.calls.append((began, Moment.now()))
        self.request = request
        return answer

    def between(self) -> dict[str, list[Moment]]:
        """What passed between calls, by what the call before had asked for."""
        calls = self.calls
        gaps = [after[0] - before[1] for before, after in pairwise(calls)]
        return {kind: gaps[at :: len(KINDS)][WARM_UP:-1] for at, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Moment:
    """Or a span, in milliseconds."""

    wall: float
    cpu: float
    """Of this process and of those it started that have ended."""

    @classmethod
    def now(cls) -> Moment:
        used = [resource.getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
        cpu_s = sum(one.ru_utime + one.ru_stime for one in used)
        return cls(time.perf_counter() * 1e3, cpu_s * 1e3)

    def __sub__(self, other: Moment) -> Moment:
        return Moment(self.wall - other.wall, self.cpu - other.cpu)


async def walk(place: Path, data: Path, socket: Path, client: Watched) -> None:
    """Run one code job over all rounds."""
    settings = DepartmentSettings(data, (place,), model=client.settings)
    services = Services(settings, client=client, sandbox=SANDBOX)
    store = RemoteStore(socket)
    troupe = await LocalTroupe(kinds_with(services), store).start()
    try:
        await finished(troupe, place)
    finally:
        await troupe.stop()


async def finished(troupe: LocalTroupe, place: Path) -> None:
    client = troupe.client()
    job = AgentJob.new(
        id="job_bench", organization_id="acme", agent_type="code", now_ms=client.clock.now_ms(),
        payload=assignment(place), config=GENEROUS,
    )  # fmt: skip
    write = Write("job", job.id, job.to_json(), job_terms(job))
    await client.send("scheduler:main", {"jobId": job.id}, "job.queued", writes=[write])
    async with asyncio.timeout(WITHIN_S):
        while not job.status.final:
            await asyncio.sleep(LOOK_S)
            document = await client.get("job", job.id)
            assert document is not None
            job = AgentJob.from_json(document.body)
    assert job.result is not None, job.error
    assert job.result.outcome == "finished", job.result.summary


# What nobody could do without


def bare_call(
    http: httpx2.AsyncClient, url: str, request: ModelRequest
) -> Callable[[], Awaitable[None]]:
    """The same call as the walk's last, by the HTTP library alone."""
    body = json.dumps({**to_wire(request), "stream": True}).encode()

    async def call() -> None:
        async with http.stream("POST", f"{url}/v1/messages", content=body) as response:
            assert b"message_stop" in await response.aread()

    return call


def command(*argv: str, **env: str) -> Callable[[], Awaitable[None]]:
    """A process from its start to its end."""

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.DEVNULL, env={"PATH": os.environ["PATH"], **env}
        )
        assert await process.wait() == 0, argv

    return run


def bare_git(place: Path) -> Callable[[], Awaitable[None]]:
    """Change a file, `git add --all` and `git write-tree`."""
    number = iter(range(1_000_000))
    add = command("git", "-C", str(place), "add", "--all")
    write = command("git", "-C", str(place), "write-tree")

    async def run() -> None:
        with (place / path_of(11)).open("a") as file:
            file.write(f"# {next(number)}\n")
        await add()
        await write()

    return run


async def timed(call: Callable[[], Awaitable[None]], times: int) -> list[float]:
    """Milliseconds of each of `times` calls, after the warm-up."""
    took = []
    for _ in range(WARM_UP + times):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1e3)
    return took[WARM_UP:]


# The report


def figures(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {
        "p50Ms": round(statistics.median(ordered), 2),
        "p95Ms": round(ordered[round(0.95 * (len(ordered) - 1))], 2),
    }


async def bench(rounds: int = ROUNDS) -> Json:
    """The walk, then the floors beside it."""
    root = Path(tempfile.mkdtemp(prefix="bench-rounds-"))
    store = StoreProcess(root / "store")
    store.directory.mkdir()
    try:
        await store.start()
        place = repository(root / "repository", generated())
        async with scripted_process(root, one_scene(*turns(rounds))) as server:
            client = Watched(compatible(server))
            await walk(place, root / "data", store.socket, client)
            await client.aclose()
            assert client.request is not None
            async with httpx2.AsyncClient(trust_env=False) as http:
                call = await timed(bare_call(http, server.url, client.request), rounds)
            floors = {
                "modelCall": call,
                "bwrapTrue": await timed(command("bwrap", *BWRAP), rounds),
                "gitAddWriteTree": await timed(bare_git(place), rounds),
            }
    finally:
        await store.kill()
        shutil.rmtree(root)
    return report(rounds, client, floors)


def report(rounds: int, client: Watched, floors: dict[str, list[float]]) -> Json:
    between = client.between()
    added = {kind: figures([one.wall for one in gaps]) for kind, gaps in between.items()}
    cpu = {kind: statistics.median(one.cpu for one in gaps) for kind, gaps in between.items()}
    floor = {name: figures(took) for name, took in floors.items()}
    calls = [(ended - began).wall for began, ended in client.calls]
    least = {
        "edit": floor["gitAddWriteTree"]["p50Ms"],
        "bash": floor["gitAddWriteTree"]["p50Ms"] + floor["bwrapTrue"]["p50Ms"],
        "read": floor["bwrapTrue"]["p50Ms"],
    }
    return {
        "bench": "rounds",
        "files": FILES,
        "roundsOfEachKind": rounds,
        "added": added,
        "cpuMs": {kind: round(ms, 1) for kind, ms in cpu.items()},
        "modelCall": figures(calls),
        "floor": floor,
        "addedOfFloor": {
            kind: round(added[kind]["p50Ms"] / most, 2) for kind, most in least.items()
        },
        "met": {kind: added[kind]["p50Ms"] < most for kind, most in TARGETS_MS.items()},
    }


if __name__ == "__main__":
    given = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    sys.stdout.write(json.dumps(asyncio.run(bench(given))) + "\n")
