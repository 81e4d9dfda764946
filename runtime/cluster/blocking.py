"""`runtime.schedules` for a program without an event loop: each call returns when it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from runtime.client import Client
from runtime.schedules import Schedules

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class Run(Protocol):
    """Calls a function with a client of the organization, and returns what it answers."""

    def __call__(self, work: Callable[[Client], Awaitable[S]]) -> S: ...


def _blocking(
    method: Callable[Concatenate[Schedules, P], Awaitable[T]],
) -> Callable[Concatenate[BlockingSchedules, P], T]:
    @wraps(method)
    def call(self: BlockingSchedules, /, *args: P.args, **named: P.kwargs) -> T:
        return self._run(lambda client: method(Schedules(client), *args, **named))

    return call


class BlockingSchedules:
    """The schedules of one organization's agents, under the names of `Schedules`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    create = _blocking(Schedules.create)
    update = update_schedule = _blocking(Schedules.update)
    delete = _blocking(Schedules.delete)
    get = _blocking(Schedules.get)
    get_agent_schedules = _blocking(Schedules.get_agent_schedules)
    get_scheduled_agents = _blocking(Schedules.get_scheduled_agents)
    get_execution_history = _blocking(Schedules.get_execution_history)
    validate_cron_expression = staticmethod(Schedules.validate_cron_expression)
