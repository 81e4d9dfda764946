"""`troupe verify secrets`: every secret is a canary, and no canary is anywhere it need not be.

A deployment of its own does one issue from intake to delivery while secrets of
every kind are used, and misused: sent in the wrong place, in a wrong request,
revoked.  Then all that was written or is told is searched for them:

    files      the store with its log, every log, Ray's folder, the workspaces
    processes  their command lines
    API        every page that can be read, and the answers to the wrong requests
    delivery   the branch in the repository

A secret may be in the one file that is there to hold it.
"""

from __future__ import annotations

import asyncio
import secrets as chance
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import httpx2

from actors.verification.installation import Installation, deliver, installed
from runtime.clock import SystemClock
from runtime.cluster.processes import marked
from runtime.cluster.stores import local_client
from runtime.ids import HOME
from runtime.keys import Keys, Role
from runtime.verify.report import Outcome, TooLittleError

CHUNK: Final = 1 << 20
OVERLAP: Final = 256
PAGES: Final = (
    "/api/issues", "/api/jobs", "/api/agents", "/api/reviews", "/api/audit", "/api/dead-letters",
    "/api/scheduler/status", "/api/registry/services", "/api/health", "/api/ready", "/docs",
    "/openapi.json",
)  # fmt: skip


def secrets() -> Outcome:
    """Start one, use every secret, search, end it."""
    return asyncio.run(_secrets())


class _Canaries:
    """Name -> the secret; each is long enough to be nowhere by chance."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.homes: dict[str, Path] = {}
        """Where one may be."""
        self.hits: list[str] = []
        self.sinks = 0

    def new(self, name: str) -> str:
        self.words[name] = f"canary{chance.token_hex(16)}"
        return self.words[name]

    def search(self, sink: str, body: bytes, file: Path | None = None) -> None:
        for name, word in self.words.items():
            at_home = file is not None and self.homes.get(name) == file
            if not at_home and word.encode() in body:
                self.hits.append(f"{name} is in {sink}")


async def _secrets() -> Outcome:
    canaries = _Canaries()
    environment = {
        "ANTHROPIC_API_KEY": canaries.new("the model's key"),
        "DATABASE_PASSWORD": canaries.new("a variable of the operator's"),
    }
    async with installed(environment) as troupe:
        await _use(troupe, canaries)
        issue = await deliver(troupe)
        if not await _model_was_asked(troupe, issue):
            raise TooLittleError("no model call is recorded, so its key was not used")
        for path in _files(troupe.data, troupe.settings.directory.scratch):
            canaries.sinks += 1
            _search_file(canaries, path)
        for pid in marked(troupe.data):
            canaries.sinks += 1
            canaries.search(f"the command line of {pid}", _command_line(pid))
        for page, body in [one async for one in _pages(troupe, issue)]:
            canaries.sinks += 1
            canaries.search(page, body)
        canaries.sinks += 1
        log = ["git", "-C", str(troupe.repository), "log", "--all", "--patch"]
        told = await asyncio.to_thread(subprocess.run, log, capture_output=True, check=True)
        canaries.search("the delivered branch", told.stdout)
    hits = sorted(set(canaries.hits))
    figure = {
        "verification": "secrets", "canaries": len(canaries.words), "sinks": canaries.sinks,
        "hits": len(hits),
    }  # fmt: skip
    sentence = f"{len(canaries.words)} secrets searched for in {canaries.sinks} sinks: "
    sentence += f"{len(hits)} HITS, the first: {hits[0]}." if hits else "none is in any."
    return Outcome(figure, sentence, not hits, hits)


async def _use(troupe: Installation, canaries: _Canaries) -> None:
    """Use what the deployment has made, and misuse what it has not."""
    directory = troupe.settings.directory
    made = {"the admin key": directory.admin_key, "Ray's token": directory.ray_token}
    for name, file in made.items():
        canaries.words[name] = file.read_text().strip()
        canaries.homes[name] = file
    store = local_client(troupe.settings)
    keys = Keys(store, SystemClock())
    for name, role in (("a viewer's key", Role.VIEWER), ("a revoked key", Role.OPERATOR)):
        token, key = await keys.create(HOME, role, name)
        canaries.words[name] = token
        if "revoked" in name:
            await keys.revoke(key.id)
    await store.close()
    for answer in [one async for one in _wrong_requests(troupe, canaries)]:
        canaries.sinks += 1
        canaries.search(f"the answer {answer.status_code} of {answer.url.path}", answer.content)


async def _wrong_requests(
    troupe: Installation, canaries: _Canaries
) -> AsyncIterator[httpx2.Response]:
    http = troupe.http
    for name in ("a viewer's key", "a revoked key"):
        headers = {"Authorization": f"Bearer {canaries.words[name]}"}
        yield await http.get("/api/jobs", headers=headers)
    bearer = {"Authorization": f"Bearer {canaries.new('a key that never was')}"}
    yield await http.get("/api/jobs", headers=bearer)
    basic = {"Authorization": f"Basic {canaries.new('a password sent as Basic')}"}
    yield await http.get("/api/jobs", headers=basic)
    yield await http.get("/api/jobs", params={"token": canaries.new("a key in an address")})
    yield await http.get("/api/jobs", headers={"Cookie": f"key={canaries.new('a cookie')}"})
    yield await http.get("/api/jobs", params={"cursor": canaries.new("a word as a cursor")})
    wrong = {"source": canaries.new("a word in a wrong field"), "title": "x"}
    yield await http.post("/api/issues", json=wrong)
    extra = {"source": "manual", "title": "x", "apiKey": canaries.new("a key in an extra field")}
    yield await http.post("/api/issues", json=extra)
    broken = f'{{"key": "{canaries.new("a key in broken JSON")}"'.encode()
    json = {"Content-Type": "application/json"}
    yield await http.post("/api/issues", content=broken, headers=json)
    user = canaries.new("a password in a repository's address")
    url = f"https://me:{user}@github.com/some/where"
    body = {"source": "manual", "title": "x", "context": {"repository": url}}
    yield await http.post("/api/issues", json=body)
    key = {"Idempotency-Key": canaries.new("an Idempotency-Key")}
    yield await http.post("/api/agents/code:nobody/messages", json={"content": 1}, headers=key)


async def _model_was_asked(troupe: Installation, issue: str) -> bool:
    """Whether the journal of the issue's job has a model's answer."""
    job = (await troupe.get(f"/api/issues/{issue}"))["job"]["id"]
    journal = await troupe.get(f"/api/jobs/{job}/journal")
    return bool(journal["items"])


async def _pages(troupe: Installation, issue: str) -> AsyncIterator[tuple[str, bytes]]:
    record = await troupe.get(f"/api/issues/{issue}")
    job = record["job"]["id"]
    deeper = [f"/api/issues/{issue}"]
    deeper += [f"/api/jobs/{job}{end}" for end in ("", "/journal", "/artifacts", "/diff")]
    for agent in (await troupe.get("/api/agents"))["items"]:
        where = f"/api/agents/{agent['agentId']}"
        deeper += [where, f"{where}/history", f"{where}/messages"]
    for path in (*PAGES, *deeper):
        yield path, (await troupe.http.get(path)).content


def _files(*roots: Path) -> Iterator[Path]:
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path


def _search_file(canaries: _Canaries, path: Path) -> None:
    """In pieces, because some are large; what is gone meanwhile holds nothing."""
    before = b""
    try:
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                canaries.search(str(path), before + piece, path)
                before = piece[-OVERLAP:]
    except OSError:
        return


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
