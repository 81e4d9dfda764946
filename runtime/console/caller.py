"""The caller of a request: its principal, and its organization's door to the store.

    async def cancel(job_id: str, caller: Operator) -> Response: ...

A route says by the type of its parameter which role it needs: `Viewer`, `Operator`
or `Admin` of any organization, or `Keeper`: an admin of the one that runs this
installation, for what is everybody's.  Everything a route reads or writes goes through
`caller.client`, which sees one organization and answers another's ids as if
they did not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, cast

from fastapi import Depends
from starlette.requests import Request

from runtime.client import AskTimeoutError, Client
from runtime.clock import Clock
from runtime.console.feed import FeedHub
from runtime.console.load import Gauge
from runtime.console.problems import ProblemError, not_found
from runtime.console.settings import ConsoleSettings
from runtime.errors import InvalidIdError, StoreUnavailableError
from runtime.ids import HOME, Address, Ids, address, kind_of
from runtime.keys import Keys, Principal, Role
from runtime.metrics import Meter
from runtime.store.contract import Document, FeedEvent, Store
from runtime.turn import feed_event

NO_AGENTS: Final = frozenset({"scheduler", "registry", "role", "client"})
"""Kinds that no organization has an agent of: the system's own, and ways to address others."""

_NOT_YOURS: Final = (
    "The scheduler is every organization's; "
    f"only an admin of `{HOME}`, which runs this installation, may stop it or let it go on."
)


@dataclass(frozen=True)
class Console:
    """What all requests share; kept in `app.state.console`."""

    store: Store
    clock: Clock
    ids: Ids
    keys: Keys
    feed: FeedHub
    gauge: Gauge
    settings: ConsoleSettings
    meter: Meter = field(default_factory=Meter)
    kinds: frozenset[str] | None = None
    """Kinds of agents that hosts make by themselves; None: not known here."""


@dataclass(frozen=True)
class Caller:
    """One request's principal and what it may reach."""

    principal: Principal
    client: Client
    console: Console

    @property
    def by(self) -> str:
        """Who did it, as it is recorded."""
        return self.principal.name

    async def own(self, collection: str, key: str) -> Document:
        """A document of the caller's organization.

        Raises:
            ProblemError: 404, the same for absent and for another organization's.
        """
        document = await self.client.get(collection, key)
        if document is None:
            raise not_found()
        return document

    async def answer(self, agent: str, message_id: str, wait_s: float) -> Any:
        """An agent's answer to a message that was accepted.

        Raises:
            AskTimeoutError: nobody says so far; it is accepted all the same, and a store that
                is out since then is no reason to say otherwise.
            DeadLetterError: the agent gave up.
        """
        try:
            return await self.client.answer(agent, message_id, wait_s)
        except StoreUnavailableError as error:
            raise AskTimeoutError(message_id) from error

    def agent(self, agent: str) -> Address:
        """The address of one of the organization's own agents; 404 for everything else."""
        try:
            where = address(self.principal.organization, agent)
        except InvalidIdError:
            raise not_found() from None
        if kind_of(agent) in NO_AGENTS:
            raise not_found()
        return where

    def event(self, event: str, data: Mapping[str, Any], *rooms: str) -> FeedEvent:
        """A public event, to be given to a commit of `client`."""
        now_ms = self.console.clock.now_ms()
        return feed_event(self.principal.organization, event, data, rooms, now_ms)


def principal_of(request: Request) -> Principal | None:
    """Who asks; None only on the open paths."""
    return cast(Principal | None, request.scope.get("principal"))


def console_of(request: Request) -> Console:
    return cast(Console, request.app.state.console)


class Needs:
    """A dependency: the caller, if its role covers `role`; with `home`, of that organization."""

    def __init__(self, role: Role, home: bool = False) -> None:
        self.role = role
        self.home = home

    async def __call__(self, request: Request) -> Caller:
        principal, console = principal_of(request), console_of(request)
        assert principal is not None, "the middleware lets nobody else through"
        if not principal.role.covers(self.role):
            raise ProblemError(403, "forbidden", f"This needs the role {self.role.value}.")
        if self.home and not principal.is_home:
            raise ProblemError(403, "not_yours", _NOT_YOURS)
        client = Client(
            console.store, console.clock, console.ids, principal.organization, principal.key_id
        )
        return Caller(principal, client, console)


Viewer = Annotated[Caller, Depends(Needs(Role.VIEWER))]
Operator = Annotated[Caller, Depends(Needs(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(Needs(Role.ADMIN))]
Keeper = Annotated[Caller, Depends(Needs(Role.ADMIN, home=True))]
