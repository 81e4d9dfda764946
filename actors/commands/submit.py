"""`troupe submit`: hand an issue in."""

from __future__ import annotations

import secrets
from typing import IO, Any

import click

from actors.commands.base import Session, TroupeCommand
from actors.commands.failures import WrongUsageError
from actors.commands.http import FOLLOW_PATIENCE_S, PATIENCE_S, Api
from actors.commands.output import Output
from actors.commands.repository import find_repository
from actors.commands.settings import is_loopback
from actors.commands.watch import follow
from actors.commands.words import plural, remedy
from actors.records import DESCRIPTION_BYTES_MAX, PRIORITIES, TITLE_LENGTH_MAX

UNKNOWN = "unknown"
"""`estimatedWait` before anything was measured."""
TYPES = ("bug", "feature", "enhancement", "question", "task")


@click.command(
    cls=TroupeCommand,
    examples=[
        'troupe submit --repo . --title "Export fails over 50 pages" --watch',
        'troupe submit --repo https://github.com/acme/api --title "Add paging" -f issue.md',
        "git log -1 --format=%b | troupe submit --repo . --title Follow-up -f - --json",
    ],
)
@click.option("--repo", required=True, metavar="PATH|URL", help="The repository to work on.")
@click.option("--title", required=True, help=f"One line, up to {TITLE_LENGTH_MAX} characters.")
@click.option("--description", help="What is wrong or wanted; see also --file.")
@click.option(
    "-f",
    "--file",
    type=click.File("r", encoding="utf-8"),
    help="Read the description from a file; `-` reads standard input.",
)
@click.option("--type", "kind", type=click.Choice(TYPES), help="Default: found by triage.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Triage may only raise it.")
@click.option("--module", help="The part of the product it is about.")
@click.option("--base-ref", help="Branch, tag or commit to start from [default branch].")
@click.option("--external-id", help="Your own id of it; the same one twice is one issue.")
@click.option("--watch", "watching", is_flag=True, help="Follow it live; see `troupe watch`.")
@click.option("--wait", "waiting", is_flag=True, help="Wait in silence until it needs a person.")
@click.option("--timeout", "timeout_s", type=float, metavar="S", help="Wait at most S seconds.")
async def submit(session: Session, repo: str, base_ref: str | None, **given: Any) -> int:
    """Hand an issue in; an agent works on it.

    You review what comes out, and only what you approve is delivered. The work
    happens on a copy: files you have checked out are never touched. It starts
    from the last commit of the base, so commit what it should see.
    """
    _check(given)
    follows = given["watching"] or given["waiting"]
    elsewhere = session.settings.url is not None and not is_loopback(session.settings.url)
    repository = await find_repository(repo, base_ref, local=not elsewhere)
    if repository.uncommitted:
        changed = plural(len(repository.uncommitted), "uncommitted file")
        session.out.remark(f"Note: the work starts from a commit and will not see {changed}.")
    body = _body(given, repository.address, base_ref)
    async with session.api(FOLLOW_PATIENCE_S if follows else PATIENCE_S) as api:
        # The key makes a repeated request the same issue, never a second one.
        issue = await api.post("/api/issues", body, idempotency_key=secrets.token_hex(16))
        return await _after(session.out, api, issue, given)


async def _after(out: Output, api: Api, issue: dict[str, Any], given: dict[str, Any]) -> int:
    follows = given["watching"] or given["waiting"]
    if out.as_json and (given["watching"] or not follows):
        out.result({"type": "submitted", **issue} if given["watching"] else issue)
    out.say(f"Submitted {issue['id']}: {issue['status']}, estimated wait {_wait(issue)}.")
    if follows:
        quiet = not given["watching"]
        return await follow(out, api, issue["id"], quiet=quiet, timeout_s=given["timeout_s"])
    if hint := remedy(str(issue.get("reason") or "")):
        out.say(hint)
    out.say(f"Follow it with: troupe watch {issue['id']}")
    return 0


def _wait(issue: dict[str, Any]) -> str:
    wait = str(issue.get("estimatedWait") or UNKNOWN)
    return "not known yet" if wait == UNKNOWN else wait


def _check(given: dict[str, Any]) -> None:
    if not given["title"].strip():
        raise WrongUsageError("The title is empty.", "Say in one line what is wrong or wanted.")
    if len(given["title"]) > TITLE_LENGTH_MAX:
        raise WrongUsageError(f"The title has more than {TITLE_LENGTH_MAX} characters.")
    if given["description"] is not None and given["file"] is not None:
        raise WrongUsageError("Give --description or --file, not both.")
    if given["timeout_s"] is not None and not (given["watching"] or given["waiting"]):
        raise WrongUsageError("--timeout bounds the waiting: use it with --watch or --wait.")


def _body(given: dict[str, Any], repository: str, base_ref: str | None) -> dict[str, Any]:
    text = _read(given["file"]) if given["file"] is not None else given["description"] or ""
    context = {"repository": repository, "baseRef": base_ref, "module": given["module"]}
    body = {
        "source": "manual",
        "externalId": given["external_id"],
        "type": given["kind"],
        "priority": given["priority"],
        "title": given["title"],
        "description": text,
        "context": {name: value for name, value in context.items() if value is not None},
    }
    return {name: value for name, value in body.items() if value is not None}


def _read(file: IO[str]) -> str:
    try:
        text = file.read(DESCRIPTION_BYTES_MAX + 1)
    except UnicodeDecodeError as error:
        raise WrongUsageError(f"{file.name} is not text in UTF-8.") from error
    if len(text.encode()) > DESCRIPTION_BYTES_MAX:
        raise WrongUsageError(f"The description has more than {DESCRIPTION_BYTES_MAX} bytes.")
    return text
