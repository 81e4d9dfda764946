"""`troupe review`: see what an agent proposes, and decide.

A decision is bound to the artifact's hash: what is approved is what was shown,
and when the work has changed since, the server refuses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from actors.commands.base import Session, TroupeGroup
from actors.commands.failures import CommandError
from actors.commands.http import Api
from actors.commands.output import Output, patch_text, status_text, visible
from actors.commands.words import age, moment

STATUSES = ("pending", "approved", "rejected", "superseded")
LIMIT_MAX = 1_000
HASH_SHOWN = 12
HASH_PREFIX_MIN = 8


@click.group(cls=TroupeGroup, default="list")
def review() -> None:
    """See the changes that wait for a person, and approve or reject them."""


@review.command("list", examples=["troupe review", "troupe review list --status approved"])
@click.option(
    "--status", type=click.Choice([*STATUSES, "all"]), default="pending", show_default=True
)
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True)
async def list_(session: Session, status: str, limit: int) -> None:
    """List reviews; by default those that wait for a person."""
    wanted = None if status == "all" else status
    async with session.api() as api:
        found = await api.items("/api/reviews", limit, status=wanted)
    if session.out.as_json:
        return session.out.result(found)
    now = datetime.now(UTC)
    rows = [
        [r["id"], r["status"], r["issueId"], age(r["requestedAt"], now), r.get("summary") or ""]
        for r in found
    ]
    session.out.table(["REVIEW", "STATUS", "ISSUE", "AGE", "SUMMARY"], rows, "Nothing to review.")


@review.command("show", examples=["troupe review show review_01JD4W9GZ3N5"])
@click.argument("id")
async def show(session: Session, id: str) -> None:
    """Show a change: what the gates and the reviewer say, and the diff.

    ID is a review's, or its issue's.
    """
    async with session.api() as api:
        found = await find_review(api, id)
        patch = await proposed(api, found)
    if session.out.as_json:
        return session.out.result({**found, "diff": patch_text(patch)})
    say_review(session.out, found)
    session.out.say()
    session.out.diff(patch)
    if found["status"] == "pending":
        pinned = f"{found['id']} --hash {found['artifactHash'][:HASH_SHOWN]}"
        session.out.say(f"\nApprove exactly this: troupe review approve {pinned}")


@review.command(
    "approve",
    examples=[
        "troupe review approve review_01JD4W9GZ3N5",
        "troupe review approve review_01JD4W9GZ3N5 --hash 3f2a9c10be77",
    ],
)
@click.argument("id")
@click.option("--hash", "prefix", help="Only if the change still has this hash (its beginning).")
@click.option("--comment", help="Kept with the decision.")
async def approve(session: Session, id: str, prefix: str | None, comment: str | None) -> None:
    """Approve a change: it is delivered, and nothing else is.

    Without --hash the change is approved as it is now. ID is a review's, or its issue's.
    """
    await _decide(session, "approve", id, prefix, comment)


@review.command(
    "reject", examples=['troupe review reject review_01JD4W9GZ3N5 --comment "keep the old name"']
)
@click.argument("id")
@click.option("--hash", "prefix", help="Only if the change still has this hash (its beginning).")
@click.option("--comment", help="What should be different: the work is done again with it.")
async def reject(session: Session, id: str, prefix: str | None, comment: str | None) -> None:
    """Reject a change. With a comment the agent does it again, without it ends the issue."""
    await _decide(session, "reject", id, prefix, comment)


async def _decide(
    session: Session, verb: str, id: str, prefix: str | None, comment: str | None
) -> None:
    async with session.api() as api:
        found = await find_review(api, id)
        if prefix is not None:
            _check_hash(found, prefix)
        decided = await decide(api, found, verb, comment)
    if session.out.as_json:
        return session.out.result(decided)
    shown = found["artifactHash"][:HASH_SHOWN]
    past = "approved" if verb == "approve" else "rejected"
    session.out.say(f"{found['id']}: {past} the change with hash {shown}.")
    session.out.say(f"Follow what comes of it: troupe watch {found['issueId']}")


async def find_review(api: Api, id: str) -> dict[str, Any]:
    """The review of an id: its own, or its issue's.

    Raises:
        CommandError: the issue has no review.
    """
    if id.startswith("issue_"):
        issue = await api.get(f"/api/issues/{id}")
        if not issue.get("reviewId"):
            raise CommandError(
                f"{id} is {issue['status']} and has nothing to review.", f"See: troupe explain {id}"
            )
        id = issue["reviewId"]
    found: dict[str, Any] = await api.get(f"/api/reviews/{id}")
    return found


async def proposed(api: Api, found: Mapping[str, Any]) -> bytes:
    """The very bytes that a review is about.

    Raises:
        CommandError: what the server sent is something else.
    """
    digest = found.get("patchArtifact") or found["artifactHash"]
    patch = await api.content(f"/api/jobs/{found['jobId']}/artifacts/{digest}")
    if hashlib.sha256(patch).hexdigest() != digest:
        raise CommandError(f"The server sent another change than that of {found['id']}.")
    return patch


async def decide(
    api: Api, found: Mapping[str, Any], verb: str, comment: str | None = None
) -> dict[str, Any]:
    """Approve or reject exactly the change that `found` shows."""
    body = {"artifactHash": found["artifactHash"]} | ({"comment": comment} if comment else {})
    decided: dict[str, Any] = await api.post(f"/api/reviews/{found['id']}/{verb}", body)
    return decided


def say_review(out: Output, found: Mapping[str, Any]) -> None:
    """What is known of a change, without the change."""
    gates: Mapping[str, Any] = found.get("gates") or {}
    automated: Mapping[str, Any] = found.get("automated") or {}
    out.pairs(
        [
            ("review", found["id"]),
            ("status", status_text(found["status"])),
            ("issue", found["issueId"]),
            ("hash", found["artifactHash"]),
            ("summary", found.get("summary")),
            ("gates", status_text(gates["verdict"]) if gates else None),
            ("reviewer", automated.get("verdict")),
            ("", automated.get("summary")),
            ("requested", moment(found["requestedAt"])),
            ("decided", moment(found.get("decidedAt"))),
            ("by", found.get("decidedBy")),
            ("comment", found.get("comment")),
        ]
    )
    for result in gates.get("results", ()):
        out.say(f"  {result['verdict']:11s}  {result['gate']}: {visible(result['message'])}")
    for finding in (*_objections(gates), *automated.get("blocking", ())):
        place = ":".join(str(finding[part]) for part in ("path", "line") if finding.get(part))
        out.say(f"    {visible(place)}  {visible(finding['why'])}")


def _objections(gates: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    results = gates.get("results", ())
    return [one for r in results if r["verdict"] != "passed" for one in r.get("findings", ())]


def _check_hash(found: Mapping[str, Any], prefix: str) -> None:
    now = found["artifactHash"]
    if len(prefix) < HASH_PREFIX_MIN or not now.startswith(prefix.lower()):
        raise CommandError(
            f"The change of {found['id']} now has the hash {now[:HASH_SHOWN]}, not {prefix}.",
            f"Look at it again: troupe review show {found['id']}",
        )
