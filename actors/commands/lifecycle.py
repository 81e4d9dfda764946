"""`troupe up`, `troupe down`, `troupe status`: Troupe on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

import click
from rich.text import Text

from actors.commands.base import Session, TroupeCommand
from actors.commands.deployment import deployment, environment, ignored, slips
from actors.commands.failures import RefusedError
from actors.commands.http import Api
from actors.commands.output import Output, status_text
from actors.commands.settings import CommandSettings
from actors.commands.words import scheduler_state
from runtime.cluster import Running, running, started_with
from runtime.cluster import down as stop
from runtime.cluster import up as start
from runtime.cluster.exposure import Listener, listeners

SCRIPTED_NOTICE: Final = (
    "No model is configured: the scripted one answers, and only for the shipped sample.\n"
    "Everything else waits until there is a model: ANTHROPIC_API_KEY=... or ANTHROPIC_BASE_URL=..."
)
STORE_OUT: Final = (
    "does not answer: nothing is accepted until it does, and nothing that was is lost"
)
REVIEWS_MAX: Final = 100
PORT_MAX: Final = 65_535
HOSTS_MAX: Final = 64


@click.command(
    cls=TroupeCommand,
    examples=[
        "troupe up",
        "ANTHROPIC_API_KEY=... troupe up --port 8001",
        "TROUPE_REPOSITORY_ROOTS=/srv/git:/home/ann troupe up",
        "troupe up --store redis://127.0.0.1:6379/0",
    ],
)
@click.option(
    "--port",
    type=click.IntRange(1, PORT_MAX),
    show_default="8000",
    envvar="PORT",
    show_envvar=True,
    help="Of the HTTP API, on loopback.",
)
@click.option(
    "--hosts",
    type=click.IntRange(1, HOSTS_MAX),
    show_default="2",
    envvar="TROUPE_HOSTS",
    show_envvar=True,
    help="Processes that agents live in.",
)
@click.option(
    "--store",
    metavar="redis://HOST:PORT/DB",
    envvar="REDIS_URL",
    show_envvar=True,
    help="Keep everything in this Redis instead of the data directory.",
)
def up(session: Session, port: int | None, hosts: int | None, store: str | None) -> None:
    """Start Troupe here, in the background.

    Returns when it answers. One that runs already is left as it is, and what
    it should be otherwise is told. After a crash, of all of it even, the same
    command goes on from the last step.

    Repositories may be named by path below TROUPE_REPOSITORY_ROOTS (default:
    your home and the data directory), so that the API is no way to read the
    rest of the disk.
    """
    before = running(session.data)
    found = start_here(session.settings, session.out, port, hosts, store or "")
    given = {"PORT": port, "TROUPE_HOSTS": hosts, "REDIS_URL": store}
    others = other_settings(session.settings, found, given) if before else []
    if session.out.as_json:
        started = {"started": before is None, "ignored": others}
        return session.out.result({**wire(found), **started})
    session.out.say("Troupe runs already." if before else "Troupe is up.")
    say_running(session.out, found)
    say_others(session.settings, session.out, found, others)


def start_here(
    settings: CommandSettings,
    out: Output,
    port: int | None = None,
    hosts: int | None = None,
    store: str = "",
) -> Running:
    """Start Troupe over the data directory, saying what takes its time.

    What is not given is as the environment says.
    """
    data = settings.data_path
    for slip, meant in slips(settings.environment).items():
        out.remark(f"{slip} is no setting and changes nothing; did you mean {meant}?")
    environ = {**settings.environment, **({"REDIS_URL": store} if store else {})}
    return start(
        deployment(data, port, hosts, environ),
        env=environment(data, environ),
        on_progress=out.progress,
    )


@click.command(cls=TroupeCommand, examples=["troupe down"])
def down(session: Session) -> None:
    """Stop Troupe here.

    Accepted work stays and goes on with the next `troupe up`.
    """
    stopped = stop(session.data, on_progress=session.out.progress)
    if session.out.as_json:
        return session.out.result({"stopped": stopped, "data": str(session.data)})
    session.out.say("Troupe is stopped." if stopped else f"Nothing ran over {session.data}.")


@click.command(cls=TroupeCommand, examples=["troupe status", "troupe status --json"])
async def status(session: Session) -> int:
    """Show what runs, where, and how it is.

    Addresses and what guards them, the store and what it survives, the queue,
    and how many changes wait for a person. Exit code 1 when it answers but is degraded.
    """
    async with session.api() as api:
        seen, url = await _look(api), api.url
    found = None if session.settings.url else running(session.data)
    if session.out.as_json:
        here: dict[str, Any] = wire(found) if found else {"url": url}
        if found:
            here["ports"] = [asdict(one) for one in _ports(found)]
        session.out.result({**here, **seen})
    else:
        if found:
            say_running(session.out, found)
            await _say_ports(session.out, found)
        _say_health(session.out, url, seen)
    return 0 if seen["health"]["status"] == "ok" else 1


async def _look(api: Api) -> dict[str, Any]:
    """How it is; without its store a Troupe can say no more than that."""
    try:
        health = await api.get("/api/health")
        scheduler = await api.get("/api/scheduler/status")
        reviews = await api.items("/api/reviews", REVIEWS_MAX, status="pending")
    except RefusedError as error:
        if (error.problem or {}).get("code") != "store_unavailable":
            raise
        return {"health": {"status": "degraded"}, "scheduler": None, "reviewsPending": None}
    return {"health": health, "scheduler": scheduler, "reviewsPending": len(reviews)}


def _ports(found: Running) -> list[Listener]:
    return listeners(found.data, urlsplit(found.url).port or 0)


async def _say_ports(out: Output, found: Running) -> None:
    """Which TCP ports are open, and what guards each."""
    for one in await asyncio.to_thread(_ports, found):
        where = "this machine only" if one.loopback else "all interfaces"
        out.say(f"port {one.port:<6} {where:<18} {one.guard:<28} {one.process}")


def wire(found: Running) -> dict[str, Any]:
    """A deployment as JSON."""
    return {
        "url": found.url,
        "consoleUrl": found.console_url,
        "dashboardUrl": found.dashboard_url,
        "data": str(found.data),
        "keyFile": str(found.key_file),
        "pid": found.pid,
        "modelProvider": found.model_provider,
    }


def say_running(out: Output, found: Running) -> None:
    """Where everything is."""
    out.pairs(
        [
            ("API", f"{found.url}/api   (a key is needed)"),
            ("API page", found.console_url),
            ("Ray dashboard", f"{found.dashboard_url}   (token in {found.data / 'ray.token'})"),
            ("data", str(found.data)),
            ("key", str(found.key_file)),
            ("model", found.model_provider),
            ("stop with", "troupe down"),
        ]
    )
    if found.model_provider == "scripted":
        out.say(SCRIPTED_NOTICE)


def other_settings(
    settings: CommandSettings, found: Running, given: Mapping[str, object]
) -> list[str]:
    """Names of the settings that are asked for and that what runs was not started with.

    Args:
        given: options, by the names of their variables; they win over those.
    """
    options = {name: str(value) for name, value in given.items() if value}
    running_with = started_with(found)
    return ignored({**settings.environment, **options}, running_with) if running_with else []


def say_others(
    settings: CommandSettings, out: Output, found: Running, others: Sequence[str] = ()
) -> None:
    """Say so when what runs was started with another model or other settings than are asked for."""
    wanted = deployment(settings.data_path, None, None, settings.environment).model_provider
    if wanted != found.model_provider:
        out.remark(f"It was started with the model provider {found.model_provider}, not {wanted}.")
    if others:
        out.remark(f"It was started with other settings, and goes on so: {', '.join(others)}.")
    if others or wanted != found.model_provider:
        out.remark("To change it: troupe down, then the same command again. No work is lost.")


def _accepted(details: Mapping[str, str]) -> str:
    """Counted by the store itself; what a process has committed begins anew with each."""
    messages, pending, events = (int(details[name]) for name in ("messages", "pending", "events"))
    return f"{messages:,} messages, {pending:,} of them pending; {events:,} events told"


def _say_health(out: Output, url: str, seen: Mapping[str, Any]) -> None:
    health, scheduler, reviews = seen["health"], seen["scheduler"], seen["reviewsPending"]
    asked: list[tuple[str, str | Text | None]] = [
        ("health", status_text(health["status"])),
        ("at", url),
    ]
    if scheduler is None:
        return out.pairs([*asked, ("store", STORE_OUT)])
    store: Mapping[str, Any] = health.get("store") or {}
    return out.pairs(
        [
            *asked,
            ("store", f"{store['backend']}, survives {store['durability']}" if store else None),
            ("accepted", _accepted(store["details"]) if store else None),
            ("scheduler", scheduler_state(scheduler)),
            ("to review", f"{reviews}   (troupe review)" if reviews else "nothing"),
        ]
    )
