"""A schedule as a person reads it, and why a command about one was refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from actors.commands.base import Session
from actors.commands.failures import CommandError, RefusedError, WrongUsageError
from actors.commands.http import Api
from actors.commands.output import Output, status_text
from actors.commands.schedule import misread
from actors.commands.words import dollars, duration, moment, plural, scheduler_state

TRIGGERS: Final = ("nightly", "cron", "interval", "at", "event")
DEFAULT: Final = "default"
"""The name of a schedule that was given none."""
UNPROCESSABLE: Final = 422
NOT_FOUND: Final = 404


@asynccontextmanager
async def about(
    session: Session, agent: str, name: str, texts: Mapping[str, str] | None = None
) -> AsyncIterator[Api]:
    """The API, its refusals said in the words of the command.

    Args:
        texts: what was typed, by the field of the request's body.

    Raises:
        WrongUsageError: what was typed can't be meant; of an expression with its place.
        RefusedError: as by the server, with what to do.
    """
    try:
        async with session.api() as api:
            yield api
    except RefusedError as error:
        raise _told(error, agent, name, texts or {}) from error


def _told(error: RefusedError, agent: str, name: str, texts: Mapping[str, str]) -> CommandError:
    problem = error.problem or {}
    named = "" if name == DEFAULT else f" --name {name}"
    if problem.get("status") == NOT_FOUND:
        sentence = f"{agent} has no schedule `{name}`."
        return RefusedError(sentence, "Those there are: troupe schedule list", problem)
    pausing = str(problem.get("instance")).endswith("/pause")
    if problem.get("code") == "executing" and pausing:
        hint = f"Pause it after that run: troupe schedule pause {agent}{named} --drain"
        return RefusedError(error.message, hint, problem)
    if problem.get("status") != UNPROCESSABLE:
        return error
    field, position = str(problem.get("field")), problem.get("position")
    if field in texts and isinstance(position, int):
        return misread(texts[field], problem["code"], position, problem["detail"])
    return WrongUsageError(error.message, error.hint, problem)


def when(view: Mapping[str, Any]) -> str:
    """What a schedule was set to, with its zone unless that is UTC."""
    text = next(f"{name} {view[name]}" for name in TRIGGERS if view.get(name))
    return f"{text} {view['timezone']}" if view["timezone"] != "UTC" else text


def say_schedule(out: Output, view: Mapping[str, Any]) -> None:
    """A schedule in full: what was asked for, its defaults, how it stands, what is next."""
    spent, budget = dollars(view["spentUsdToday"]), view.get("budgetUsdPerDay")
    out.pairs(
        [
            ("agent", view["agentId"]),
            ("name", view["name"]),
            ("id", f"{view['id']} revision {view['revision']}"),
            ("status", status_text(view["status"])),
            ("error", view.get("error")),
            ("when", when(view)),
            ("dialect", view.get("dialect")),
            ("start", view.get("start")),
            ("end", view.get("end")),
            ("priority", view["priority"]),
            ("overlap", view["overlap"]),
            ("catch-up", _catch_up(view["catchUp"])),
            ("jitter", f"{view['jitterS']} s"),
            ("repository", view.get("repository")),
            ("branch", view.get("branch")),
            ("only if", "the repository has changed" if view["onlyIfChanged"] else None),
            ("budget", f"{dollars(budget)} a day, {spent} spent today" if budget else None),
            ("limit key", view.get("limitKey")),
            ("attempts", str(view["maxAttempts"]) if view.get("maxAttempts") else None),
            ("payload", json.dumps(view["payload"]) if view["payload"] else None),
            ("next run", moment(view.get("nextRunAt"))),
            ("last run", moment(view.get("lastRunAt"))),
            ("last job", view.get("lastJobId")),
            ("last outcome", view.get("lastOutcome")),
            ("running", ", ".join(view["running"])),
            ("waiting", ", ".join(moment(due) for due in view["waiting"])),
            ("runs", f"{plural(view['runs'], 'run')}, {view['failures']} failed in a row"),
            ("changed", f"{moment(view['updatedAt'])} by {view['changedBy']}"),
            ("why", view.get("reason")),
        ]
    )
    _say_next(out, view)


def _catch_up(policy: Mapping[str, Any]) -> str:
    """What is done about due times that nobody was there for."""
    if policy["policy"] == "none":
        return "none"
    cap = f", at most {policy['cap']}" if policy["policy"] == "all" else ""
    return f"{policy['policy']}, of the past {duration(policy['windowS'])}{cap}"


async def say_if_paused(api: Api, out: Output) -> None:
    """Say beside a schedule that nothing starts, whatever the schedule is."""
    status = await api.get("/api/scheduler/status")
    if status["state"] == "PAUSED":
        out.remark(f"The scheduler is {scheduler_state(status)}")
        out.remark("Nothing starts, and what is due is skipped, until: troupe scheduler resume")


def _say_next(out: Output, view: Mapping[str, Any]) -> None:
    named = "" if view["name"] == DEFAULT else f" --name {view['name']}"
    if view["status"] in ("paused", "draining", "error"):
        state = "in ERROR" if view["status"] == "error" else "paused"
        out.say(f"It is {state}: nothing starts by itself, and what is due is skipped.")
        return out.say(f"Let it go on with: troupe schedule resume {view['agentId']}{named}")
    if view.get("event") and view["status"] != "ended":
        return out.say(f"Due when it is told of `{view['event']}`: POST /api/schedules/events")
    return say_due(out, view["timezone"], view["next"], "Nothing more is due.")


def say_due(out: Output, zone: str, fires: list[dict[str, str]], none: str) -> None:
    """Due times, in their zone and in UTC; once where that is the same."""
    if zone == "UTC":
        return out.table(["NEXT (UTC)"], [[one["utc"]] for one in fires], none, whole=True)
    rows = [[one["local"], one["utc"]] for one in fires]
    return out.table([f"NEXT ({zone})", "UTC"], rows, none, whole=True)
