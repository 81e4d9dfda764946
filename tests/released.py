"""Released shapes: what a release has written, kept so that every later one is tried on it.

    python -m tests.released DIRECTORY        makes one with the code that is here; by hand, at a
                                              release, from a clean checkout, never by a test

    DIRECTORY/store.db.gz     a department in the midst of its work
    DIRECTORY/<kind>.json     the journal and the jobs of one agent of each kind
    DIRECTORY/script.json     what its model says, to go on with

In it one issue is delivered, one question is answered, one waits for a person,
and one is being worked on: its host was gone while the model was answering.
Paths of the machine it was made on are replaced by `@ROOT@`; the repository is
made anew by `place`, with the same commits.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from actors.models.prices import SCRIPTED_MODEL
from runtime.journal import fold
from tests.acceptance.department import Department, department
from tests.scripted import Scripted, scripted_process
from tests.workshop import repository

Json = dict[str, Any]

FIXTURES: Final = Path(__file__).parent / "fixtures" / "journals"
ROOT: Final = "@ROOT@"
SHOP: Final = "shop"
DELIVERED, WAITING, HELD, QUESTION = (
    "Totals are one too low",
    "Sums lose a cent",
    "Counting starts late",
    "Why are totals low?",
)
TITLES: Final = (DELIVERED, WAITING, HELD, QUESTION)
KINDS: Final = ("issue", "triage", "code", "research", "review", "delivery")
WRONG: Final = "    return sum(prices) - 1\n"
FILES: Final = {
    ".troupe.yaml": "commands:\n  test: python3 -m unittest -q\n",
    ".gitignore": "__pycache__/\n",
    "shop.py": f"def total(prices):\n{WRONG}",
    "test_shop.py": (
        "import unittest\n\nfrom shop import total\n\n\n"
        "class TotalTest(unittest.TestCase):\n"
        "    def test_total(self):\n        self.assertEqual(total([1, 2]), 3)\n"
    ),
}


def place(root: Path) -> Path:
    """The repository, with the commits that a fixture knows."""
    return repository(root / SHOP, FILES)


def environment(server: Scripted) -> dict[str, str]:
    return {"ANTHROPIC_BASE_URL": server.url, "TROUPE_MODEL": SCRIPTED_MODEL}


def unpack(version: Path, root: Path) -> Path:
    """A fixture's store as it would be on this machine: at `root/data/troupe.db`."""
    database = root / "data" / "troupe.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(gzip.decompress((version / "store.db.gz").read_bytes()))
    _replace(database, ROOT, str(root))
    return database


def read(version: Path, kind: str, root: Path) -> Json:
    """A kind's journal, as it would be on this machine."""
    return dict(json.loads((version / f"{kind}.json").read_text().replace(ROOT, str(root))))


# Making one


def script() -> Json:
    """What the model says; frozen into the fixture, so that it may change here."""
    return {"name": "released", "scenes": [*_triage(), *_work(), *_reviews(), _research()]}


def use(name: str, **arguments: Any) -> Json:
    return {"tools": [{"name": name, "input": arguments}]}


def _scene(role: str, title: str, *turns: Json) -> Json:
    match = {"system": [f"role: {role}"], "user": [title]}
    return {"name": f"{role} {title}", "match": match, "turns": list(turns)}


def _triage() -> list[Json]:
    def said(type: str, title: str) -> Json:
        evidence = [{"supports": "type", "quote": title}]
        rest = {"module": None, "complexity": "simple", "confidence": "high"}
        return {"json": {"type": type, "priority": "medium", **rest, "evidence": evidence}}

    bugs = [_scene("triage", title, said("bug", title)) for title in (DELIVERED, WAITING, HELD)]
    return [*bugs, _scene("triage", QUESTION, said("question", QUESTION))]


def _work() -> list[Json]:
    mend = use("edit", path="shop.py", old_string=WRONG, new_string="    return sum(prices)\n")
    finish = use("finish", summary="Adds it up.", confidence="high", tests_run=["unittest"])
    look = use("bash", command="echo looked > /tmp/note; ls")
    turns = (look, use("run_tests"), mend, use("run_tests"), finish, finish)
    return [_scene("code", title, *turns) for title in (DELIVERED, WAITING, HELD)]


def _reviews() -> list[Json]:
    approve = use("review", verdict="approve", blocking=[], test_gaps=[])
    return [_scene("review", title, approve) for title in (DELIVERED, WAITING, HELD)]


def _research() -> Json:
    report = use(
        "report",
        root_cause="It subtracts one.",
        evidence=[{"path": "shop.py", "line": 2}],
        options=["Leave it out."],
        confidence="high",
    )
    finish = use("finish", summary="It subtracts one.", confidence="high", tests_run=[])
    return _scene("research", QUESTION, use("read", path="shop.py"), finish, report)


async def make(target: Path) -> None:
    """Let a department work, stop it in the midst, and keep what it has written."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        place(root)
        async with scripted_process(root, script()) as server:
            held = {"system": "role: code", "user": HELD}
            await server.faults({"kind": "hold", "nth": 4, "match": held, "times": None})
            async with department(root, environment(server)) as troupe:
                issues = await _live(troupe, root / SHOP)
                await server.until_held()
                journals = {kind: await _journal(troupe, issues, kind) for kind in KINDS}
        _keep_store(root, target)
        for kind, journal in journals.items():
            text = json.dumps(journal, indent=1).replace(str(root), ROOT)
            (target / f"{kind}.json").write_text(text + "\n")
        (target / "script.json").write_text(json.dumps(script(), indent=1) + "\n")


async def _live(troupe: Department, where: Path) -> dict[str, str]:
    """File the issues and bring each where it is to be found; their ids by their titles."""
    issues: dict[str, str] = {}
    for title in TITLES:
        kind = "question" if title == QUESTION else "bug"
        body = {"source": "manual", "type": kind, "title": title, "description": f"{title}."}
        context = {"repository": str(where)}
        issues[title] = await troupe.submit({**body, "context": context})
    await troupe.decide(issues[DELIVERED], "approve", "Good.")
    for title in (DELIVERED, QUESTION):
        await troupe.until(issues[title], lambda found: found["status"] == "completed")
    await troupe.review(issues[WAITING])
    return issues


async def _journal(troupe: Department, issues: Mapping[str, str], kind: str) -> Json:
    """One agent of a kind: its journal with the state it makes, its ended job with its steps."""
    about = issues[QUESTION if kind == "research" else DELIVERED]
    jobs = [job for job in await troupe.jobs(about) if job.agent_type == kind]
    agent = {"issue": f"issue:{about}", "triage": "triage:main"}.get(kind) or jobs[0].agent
    if kind == "triage":
        jobs = [
            job
            for one in await troupe.store.list_documents("job", terms=["agentType=triage"])
            if (job := await troupe.job(one.key)).issue_id == about
        ]
    events = await troupe.store.journal(f"acme/{agent}", 0, 1_000)
    return {
        "agent": agent,
        "events": [
            {"name": event.name, "schema": event.schema, "body": json.loads(event.body)}
            for event in events
        ],
        "state": fold(None, ((event.body, event.schema) for event in events), 1, {}),
        "jobs": [await _job(troupe, job.id) for job in jobs],
    }


async def _job(troupe: Department, job_id: str) -> Json:
    """A job's record and its steps, as JSON of what is stored."""
    record = (await troupe.job(job_id)).to_wire()
    steps = [
        {
            "key": step.key,
            "kind": step.kind,
            "request": json.loads(step.intent),
            "result": json.loads(step.result) if step.result is not None else None,
        }
        for step in await troupe.store.steps(job_id)
    ]
    return {"record": record, "steps": steps}


def _keep_store(root: Path, target: Path) -> None:
    kept = root / "kept.db"
    shutil.copyfile(root / "data" / "troupe.db", kept)
    _replace(kept, str(root), ROOT)
    with closing(sqlite3.connect(kept, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=delete").fetchall()
        connection.execute("VACUUM")
    (target / "store.db.gz").write_bytes(gzip.compress(kept.read_bytes(), mtime=0))


def _replace(database: Path, old: str, new: str) -> None:
    """Replace a path in everything that a store holds: JSON, wherever it stands."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'meta'"
        for (table,) in connection.execute(tables).fetchall():
            for _, column, type, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                if type in ("TEXT", "BLOB") and column not in ("terms", "rooms"):
                    changed = f"CAST(replace(CAST({column} AS TEXT), ?1, ?2) AS {type})"
                    connection.execute(
                        f"UPDATE {table} SET {column} = {changed} "
                        f"WHERE instr(CAST({column} AS BLOB), CAST(?1 AS BLOB)) > 0",
                        (old, new),
                    )


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
