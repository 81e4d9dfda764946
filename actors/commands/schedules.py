"""`troupe schedule set|list|show|pause|resume|trigger|delete|history|audit`: agents' schedules.

Added to the group of `schedule next`, which needs no running Troupe.
"""

from __future__ import annotations

import math
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import click

from actors.commands.base import Session
from actors.commands.failures import WrongUsageError
from actors.commands.given import read_json
from actors.commands.ledger import audited
from actors.commands.output import Slowness
from actors.commands.schedule import schedule
from actors.commands.schedule_view import TRIGGERS, about, say_if_paused, say_schedule, when
from actors.commands.words import moment, plural
from runtime.errors import InvalidIdError
from runtime.ids import agent_id
from runtime.schedule.jitter import JITTER_MS_MAX
from runtime.schedule.record import CAP_MAX
from runtime.schedule.spec import ATTEMPTS_MAX, WINDOW_S_MAX

LISTED_MAX: Final = 1_000
YEAR_DAYS: Final = 366
DAYS_MAX: Final = 20 * YEAR_DAYS
_INTERVAL: Final = re.compile(r"\s*(every\b|[PR][0-9T/])", re.IGNORECASE)
"""How the texts of intervals begin."""
ACCEPTED: Final = "It is accepted, and not answered yet."
ONE_WAY: Final = "Say when in exactly one way: --cron, --every, --at, --event or --nightly."

__all__ = ["schedule"]

_named = click.option(
    "--name", default="default", show_default=True, help="Which of its schedules."
)
_agent = click.argument("agent")
_why = click.option("--reason", metavar="WHY", help="For the audit trail.")


def _place(agent: str) -> str:
    """Where an agent's schedules are.

    Raises:
        WrongUsageError: no agent can be called so.
    """
    try:
        return f"/api/agents/{quote(agent_id(agent), safe=':')}/schedule"
    except InvalidIdError as error:
        hint = "An agent is `kind:key`, such as backend:acme.api. Those there are: troupe agents"
        raise WrongUsageError(f"{agent} is no agent.", hint) from error


def _every(span: str | None) -> str | None:
    """What is said after `--every`, as the interval it means."""
    if span is None or _INTERVAL.match(span):
        return span
    return f"every {span}"


def _dollars(text: str) -> float:
    amount = float(text)
    if not math.isfinite(amount):
        raise ValueError(f"{text} is no amount")
    return amount


def _path(agent: str, name: str, verb: str = "") -> str:
    return f"{_place(agent)}{verb}?name={quote(name)}"


@schedule.command(
    "set",
    examples=[
        'troupe schedule set backend:acme.api --cron "*/30 9-17 * * 1-5" --tz Europe/Berlin',
        'troupe schedule set docs:acme.api --every "every 6 hours" --priority LOW',
        'troupe schedule set qa:acme.api --nightly 01:00-05:00 --payload \'{"suite": "e2e"}\'',
        "troupe schedule set backend:acme.api --name push --event push --branch main",
    ],
)
@_agent
@_named
@click.option("--cron", metavar="EXPR", help="Five fields, or @daily.")
@click.option(
    "--every",
    "interval",
    metavar="SPAN",
    callback=lambda _context, _option, span: _every(span),
    help="`30 minutes`, `day`, PT30M, R/2026-01-01T09:00:00Z/P1D.",
)
@click.option("--at", metavar="ISO", help="Once.")
@click.option("--event", metavar="NAME", help="When it is told of, such as push.")
@click.option("--nightly", metavar="HH:MM-HH:MM", help="Once a night, somewhere in the window.")
@click.option("--tz", "timezone", metavar="ZONE", help="IANA time zone [UTC].")
@click.option(
    "--dialect",
    type=click.Choice(["debian"]),
    help="How day fields are meant on which crons differ.",
)
@click.option(
    "--priority",
    type=click.Choice(["LOW", "NORMAL", "HIGH", "CRITICAL"], case_sensitive=False),
    help="Of its jobs [NORMAL].",
)
@click.option("--start", metavar="ISO", help="Nothing is due before.")
@click.option("--end", metavar="ISO", help="Nothing is due after.")
@click.option(
    "--jitter",
    "jitter_s",
    type=click.IntRange(0, JITTER_MS_MAX // 1000),
    metavar="S",
    help="Start up to so much later.",
)
@click.option(
    "--overlap",
    type=click.Choice(["skip", "queue_one", "queue_all", "cancel_running", "allow"]),
    help="When a run has not ended [skip].",
)
@click.option(
    "--catch-up",
    type=click.Choice(["latest", "none", "all"]),
    help="What was due while nobody was there [latest].",
)
@click.option(
    "--window",
    "window_s",
    type=click.IntRange(0, WINDOW_S_MAX),
    metavar="S",
    help="Older is missed [86400].",
)
@click.option(
    "--cap", type=click.IntRange(1, CAP_MAX), metavar="N", help="With `all`: runs at most [10]."
)
@click.option("--payload", metavar="JSON", help="The jobs' payload.")
@click.option("--repository", metavar="URL", help="What its jobs work on.")
@click.option("--branch", metavar="NAME", help="With an event: of this branch only.")
@click.option("--only-if-changed", is_flag=True, default=None, help="Not for the same commit.")
@click.option("--budget", "budget_usd_per_day", type=_dollars, metavar="USD", help="A day.")
@click.option("--limit-key", metavar="KEY", help="Jobs with the same key run one at a time.")
@click.option(
    "--max-attempts",
    type=click.IntRange(1, ATTEMPTS_MAX),
    metavar="N",
    help="Tries of a job [1 and the retries].",
)
@click.option("--paused", is_flag=True, help="Do not start it yet.")
@_why
async def set_(
    session: Session,
    agent: str,
    payload: str | None,
    catch_up: str | None,
    window_s: int | None,
    cap: int | None,
    paused: bool,
    **given: Any,
) -> None:
    """Schedule AGENT (`kind:key`), or replace its schedule; say when in one way.

    What is not given has its default, which the answer shows.
    """
    if sum(given[one] is not None for one in TRIGGERS) != 1:
        raise WrongUsageError(ONE_WAY)
    body = {_camel(name): value for name, value in given.items() if value is not None}
    caught = {"policy": catch_up, "windowS": window_s, "cap": cap}
    caught = {name: value for name, value in caught.items() if value is not None}
    if caught:
        body["catchUp"] = caught
    if payload is not None:
        body["payload"] = _object(payload)
    if paused:
        body["enabled"] = False
    texts = {_camel(field): value for field, value in given.items() if isinstance(value, str)}
    async with about(session, agent, given["name"], texts) as api:
        view = await api.post(_place(agent), body, secrets.token_hex(16))
    _answer(session, view)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _object(text: str) -> dict[str, Any]:
    found = read_json(text, "--payload")
    if not isinstance(found, dict):
        raise WrongUsageError("--payload is no JSON object.")
    return found


@schedule.command("list", examples=["troupe schedule list", "troupe schedule list --agent qa:a.b"])
@click.option("--agent", metavar="AGENT", help="Of this agent only.")
async def list_(session: Session, agent: str | None) -> None:
    """List the schedules."""
    async with session.api() as api:
        found = await api.items("/api/schedules", LISTED_MAX + 1, agent=agent)
        if found and not session.out.as_json:
            await say_if_paused(api, session.out)
    if len(found) > LISTED_MAX:
        found.pop()
        session.out.remark(f"There are more than these {LISTED_MAX:,}; of one agent: --agent")
    if session.out.as_json:
        return session.out.result({"items": found})
    rows = [
        [
            one["agentId"],
            one["name"],
            one["status"],
            moment(one.get("nextRunAt")),
            one.get("lastOutcome") or "",
            when(one),
        ]
        for one in found
    ]
    columns = ["AGENT", "NAME", "STATUS", "NEXT", "LAST", "WHEN"]
    return session.out.table(columns, rows, "Nothing is scheduled.")


@schedule.command("show", examples=["troupe schedule show backend:acme.api"])
@_agent
@_named
async def show(session: Session, agent: str, name: str) -> None:
    """Show a schedule: what was asked for, its defaults, how it stands, its next due times."""
    async with about(session, agent, name) as api:
        _answer(session, await api.get(_path(agent, name)))
        if not session.out.as_json:
            await say_if_paused(api, session.out)


def _verb(verb: str, summary: str) -> None:
    @schedule.command(verb, help=summary, examples=[f"troupe schedule {verb} backend:acme.api"])
    @_agent
    @_named
    @_why
    async def act(session: Session, agent: str, name: str, reason: str | None) -> None:
        await _ask(session, agent, name, verb, {"reason": reason} if reason else {})


@schedule.command(
    "pause",
    examples=['troupe schedule pause backend:acme.api --drain --reason "release"'],
)
@_agent
@_named
@click.option("--drain", is_flag=True, help="Let the run that is executing end.")
@_why
async def pause(session: Session, agent: str, name: str, drain: bool, reason: str | None) -> None:
    """Start no more runs; what is due meanwhile is skipped."""
    body = {"drain": drain, **({"reason": reason} if reason else {})}
    await _ask(session, agent, name, "pause", body)


_verb("resume", "Let a paused schedule, or one in ERROR, run again.")
_verb("trigger", "Run it now, beside its due times.")


async def _ask(session: Session, agent: str, name: str, verb: str, body: dict[str, Any]) -> None:
    async with about(session, agent, name) as api:
        answer = await api.post(_path(agent, name, f"/{verb}"), body, secrets.token_hex(16))
    if "id" in answer or session.out.as_json:
        return _answer(session, answer)
    job = answer.get("jobId")
    session.out.say(f"Queued: {job}. See: troupe jobs show {job}" if job else "It is accepted.")
    return None


@schedule.command(
    "delete",
    examples=[
        "troupe schedule delete backend:acme.api",
        'troupe schedule delete backend:acme.api --name nightly --reason "moved to CI"',
    ],
)
@_agent
@_named
@_why
async def delete(session: Session, agent: str, name: str, reason: str | None) -> None:
    """Take an agent off the schedule; a run that has started goes on, and the ledger is kept.

    An agent that has no such schedule is left alone.
    """
    async with about(session, agent, name) as api:
        there = await api.items("/api/schedules", LISTED_MAX, agent=agent)
        is_gone = await api.delete(_place(agent), name=name, reason=reason)
    was_there = any(one["name"] == name for one in there)
    if session.out.as_json:
        deleted = was_there and is_gone
        return session.out.result({"agentId": agent, "name": name, "deleted": deleted})
    if not is_gone:
        return session.out.say(ACCEPTED)
    if was_there:
        return session.out.say(f"{agent} is off the schedule.")
    session.out.say(f"{agent} has no schedule `{name}`.")
    return session.out.remark("Those there are: troupe schedule list")


@schedule.command(
    "history",
    examples=[
        "troupe schedule history backend:acme.api",
        "troupe schedule history backend:acme.api --outcome missed",
    ],
)
@_agent
@_named
@click.option("--outcome", help="With this outcome only.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, LISTED_MAX))
async def history(session: Session, agent: str, name: str, outcome: str | None, limit: int) -> None:
    """List what became of each due time, newest first."""
    path = f"{_place(agent)}/occurrences"
    async with about(session, agent, name) as api:
        found = await api.items(path, limit, name=name, outcome=outcome)
    if session.out.as_json:
        return session.out.result({"items": found})
    rows = [
        [
            moment(one["due"]),
            moment(one.get("until")),
            str(one["count"]),
            one["outcome"],
            one.get("reason") or one["cause"],
            one.get("jobId") or one["id"],
        ]
        for one in found
    ]
    columns = ["DUE", "UNTIL", "COUNT", "OUTCOME", "WHY", "EXPLAINED BY"]
    none = f"No due time of it is {outcome}." if outcome else "Nothing was due yet."
    return session.out.table(columns, rows, none, whole=True)


@schedule.command(
    "audit",
    examples=[
        "troupe schedule audit backend:acme.api",
        "troupe schedule audit backend:acme.api --days 30 --json",
    ],
)
@_agent
@_named
@click.option("--days", default=YEAR_DAYS, show_default=True, type=click.IntRange(1, DAYS_MAX))
async def audit_(session: Session, agent: str, name: str, days: int) -> int:
    """Compute a schedule's due times anew and compare them with its ledger.

    Exit code 1 when a due time has no outcome or two, or an outcome no due time.
    What TROUPE_LEDGER_DAYS has let go is not looked at.
    """
    since = datetime.now(UTC) - timedelta(days=days)
    _place(agent)
    async with about(session, agent, name) as api:
        tell = Slowness(session.out.remark).say
        figure, notes = await audited(api, agent, name, since, tell)
    mistakes = figure["unaccounted"] + figure["double"] + figure["strange"]
    if session.out.as_json:
        session.out.result({"agentId": agent, "name": name, "days": days, **figure})
    else:
        session.out.pairs((what, _figure(value)) for what, value in figure.items())
        session.out.say(_verdict(figure["due"], mistakes, days))
        for note in notes[:20]:
            session.out.say(note)
    return 1 if mistakes else 0


def _figure(value: int | dict[str, int]) -> str:
    if isinstance(value, int):
        return str(value)
    return ", ".join(f"{count} {outcome}" for outcome, count in value.items()) or "none"


def _verdict(due: int, mistakes: int, days: int) -> str:
    past = f"the past {plural(days, 'day')}"
    if mistakes:
        return f"The ledger of {past} has {plural(mistakes, 'mistake')}:"
    return f"Computed anew, {plural(due, 'due time')} of {past}, each with exactly one outcome."


def _answer(session: Session, view: dict[str, Any]) -> None:
    if session.out.as_json:
        return session.out.result(view)
    if "agentId" not in view:
        return session.out.say(ACCEPTED)
    say_schedule(session.out, view)
    if warning := view.get("warning"):
        session.out.remark(f"Note: {warning}")
    return None
