"""`troupe demo`: the whole walk on the shipped sample, as a new user would try it.

Real in every part: a git repository made from `examples/sample_repository`, an
issue about its failing test, an agent's work in the sandbox, the human review,
the delivered branch.  Only the model may be a script, and then it says so.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from actors.commands.base import Session, TroupeCommand
from actors.commands.failures import CommandError
from actors.commands.following import Follower, Picture
from actors.commands.http import FOLLOW_PATIENCE_S, Api, connect
from actors.commands.lifecycle import SCRIPTED_NOTICE, say_others, start_here, wire
from actors.commands.output import Output
from actors.commands.review import HASH_SHOWN, decide, find_review, proposed, say_review
from actors.commands.settings import local_key
from actors.commands.watch import follow_to_stop, say_end
from actors.commands.words import cost, duration
from actors.git import Git
from actors.settings import SAMPLE_DEFAULT
from runtime.cluster import Running, running

SAMPLE_ISSUE: Final = SAMPLE_DEFAULT.with_name("sample_issue.json")
WALK_S_MAX: Final = 900.0
"""Seconds for each half of the walk; a real model takes minutes, the script seconds."""
HOPELESS: Final = frozenset({"sandbox_refused", "model_not_configured"})
"""Reasons to wait that will not pass by themselves while the demo looks on."""
RUNS_MAX: Final = 10_000
IDENTITY: Final = {
    "GIT_AUTHOR_NAME": "Sample",
    "GIT_AUTHOR_EMAIL": "sample@troupe.invalid",
    "GIT_AUTHOR_DATE": "1767225600 +0000",
    "GIT_COMMITTER_NAME": "Sample",
    "GIT_COMMITTER_EMAIL": "sample@troupe.invalid",
    "GIT_COMMITTER_DATE": "1767225600 +0000",
}
"""Fixed, so that every run starts from the same commit."""


@click.command(cls=TroupeCommand, examples=["troupe demo", "make run"])
def demo(session: Session) -> int:
    """Walk a sample issue from intake to delivery on this machine.

    Starts Troupe if it does not run, copies the sample repository into the data
    directory, hands in an issue about its failing test, shows the agent at
    work, shows the change, approves it, and says where everything is.
    """
    started_s = time.monotonic()
    _check_machine()
    found = _running(session)
    repository, picture = asyncio.run(_walk_from_nothing(session, found))
    if picture.outcome != "completed":
        say_end(session.out, picture)
        return 1
    _close(session.out, found, picture, repository, duration(time.monotonic() - started_s))
    return 0


async def _walk_from_nothing(session: Session, found: Running) -> tuple[Path, Picture]:
    repository = await make_repository(session.data / "demo", session.out)
    async with connect(found.url, local_key(session.data), local=True) as http:
        return repository, await _walk(session.out, Api(http, FOLLOW_PATIENCE_S), repository)


def _check_machine() -> None:
    if not SAMPLE_DEFAULT.is_dir() or not SAMPLE_ISSUE.is_file():
        raise CommandError(
            f"The demo needs Troupe's source checkout; there is no {SAMPLE_DEFAULT}.",
            "Clone the repository and run `make run` there; or submit an issue of your own.",
        )
    if shutil.which("bwrap") is None:
        raise CommandError(
            "bubblewrap is not installed, and agents run commands only inside of it.",
            "Install it: sudo apt-get install bubblewrap",
        )


def _running(session: Session) -> Running:
    out = session.out
    before = running(session.data)
    if before is None:
        out.progress("Starting Troupe on this machine (Ray, store, scheduler, hosts, HTTP)")
    found = before or start_here(session.settings, out)
    out.progress(f"Troupe {'runs already' if before else 'is up'} at {found.url}")
    if found.model_provider == "scripted":
        out.progress(SCRIPTED_NOTICE)
    else:
        out.progress(f"The model is real: {found.model_provider}. This costs money.")
    say_others(session.settings, out, found)
    return found


async def make_repository(folder: Path, out: Output) -> Path:
    """A fresh git repository with the sample in it; the same commit every time."""
    path = await asyncio.to_thread(_copy, folder)
    await Git(path / ".git").run("init", "--quiet", "--initial-branch=main")
    git = Git(path / ".git", path)
    await git.run("add", "--all")
    await git.run("commit", "--quiet", "--message=A sample with a failing test", env=IDENTITY)
    out.progress(f"Made a sample repository with a failing test: {path}")
    return path


def _copy(folder: Path) -> Path:
    """Copy the sample to the first free number below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, RUNS_MAX):
        path = folder / str(number)
        if not path.exists():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")
            shutil.copytree(SAMPLE_DEFAULT, path, ignore=ignored)
            return path
    raise CommandError(f"{folder} is full of earlier runs.", f"Empty it: rm -r {folder}")


async def _walk(out: Output, api: Api, repository: Path) -> Picture:
    """From intake to delivery; the last picture, completed or not."""
    body = json.loads(SAMPLE_ISSUE.read_text())
    body["context"] = {**body.get("context", {}), "repository": str(repository)}
    issue = await api.post("/api/issues", body, idempotency_key=secrets.token_hex(16))
    out.say(f"\nSubmitted {issue['id']}: {body['title']}")
    follower = Follower(api, issue["id"], WALK_S_MAX)
    picture = await follow_to_stop(out, follower, hopeless=HOPELESS)
    if picture.outcome != "review":
        return picture
    out.say(
        f"\nThe work waits for a person. This is what `troupe review show {issue['id']}` says:\n"
    )
    found = await find_review(api, issue["id"])
    patch = await proposed(api, found)
    say_review(out, found)
    out.say()
    if not out.as_json:
        out.diff(patch)
    out.say(f"\nApproving the change with hash {found['artifactHash'][:HASH_SHOWN]}")
    await decide(api, found, "approve", "Approved by the demo.")
    return await follow_to_stop(out, follower, hopeless=HOPELESS)


def _close(out: Output, found: Running, picture: Picture, repository: Path, took: str) -> None:
    resolution: Mapping[str, Any] = picture.record.get("resolution") or {}
    data: Mapping[str, Any] = (picture.job.get("result") or {}).get("data") or {}
    branch, patch = resolution.get("branch"), data.get("patchPath")
    if out.as_json:
        done = {"type": "demo", "repository": str(repository), "branch": branch, "patch": patch}
        return out.result({**done, **wire(found), "issueId": picture.id})
    out.say(f"\nDone in {took}: {resolution.get('summary') or 'delivered'}\n")
    scripted = found.model_provider == "scripted"
    unpaid = "   (of a script: nothing was paid)" if scripted else ""
    out.pairs(
        [
            ("branch", f"{branch}   in {repository}"),
            ("see it", f"git -C {repository} show {branch}"),
            ("patch", patch),
            ("cost", cost(picture.record) + unpaid),
            ("the story", f"troupe explain {picture.id}"),
            ("API page", found.console_url),
            ("Ray dashboard", found.dashboard_url),
            ("key", str(found.key_file)),
            ("stop with", "make stop   (or: troupe down)"),
        ]
    )
    if scripted:
        out.say("\nThe model was a script, which only ever serves this sample. With a real one:")
        out.say("  make stop && ANTHROPIC_API_KEY=... make run")
    return None
