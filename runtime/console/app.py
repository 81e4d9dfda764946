"""The HTTP application: `create_app` puts routes and what guards them together.

    request -> headers -> problems -> who asks -> body -> query -> route

A request passes from left to right; whatever fails on the way is answered by
`problems`.  Replicas share nothing but the store, so any of them can answer any
request.  Routes of the domain are given to `create_app` by who composes the
deployment; this package knows none of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from runtime.clock import Clock
from runtime.console import (
    agents,
    docs,
    events,
    health,
    jobs,
    ledger,
    letters,
    once,
    problems,
    scheduler,
    schedules,
    services,
    sessions,
    ws,
)
from runtime.console.auth import OPEN, AuthMiddleware
from runtime.console.body import BodyMiddleware
from runtime.console.caller import Console
from runtime.console.deadline import DeadlineStore
from runtime.console.feed import FeedHub
from runtime.console.headers import HeadersMiddleware
from runtime.console.load import Gauge
from runtime.console.metered import MeterMiddleware
from runtime.console.settings import ConsoleSettings
from runtime.errors import StoreUnavailableError
from runtime.ids import Ids
from runtime.keys import Keys
from runtime.store.contract import Store
from runtime.wire import WireModel

logger = logging.getLogger(__name__)

VERSION: Final = "1"
# the scheduler's routes before the agents': `/api/agents/scheduler/status` is no agent's
GENERIC: Final = (
    scheduler.router,
    schedules.router,
    ledger.router,
    agents.router,
    sessions.router,
    jobs.router,
    services.router,
    letters.router,
    events.router,
    ws.router,
    health.router,
    docs.router,
)


class Problem(WireModel):
    """Every error's body; some have more members, as RFC 9457 lets them."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:troupe:problem:not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such thing here."])
    code: str = Field(examples=["not_found"])
    instance: str = Field(examples=["/api/jobs/:job_id"])
    errors: tuple[dict[str, str], ...] | None = None
    """With 422: {path, message, code} of each field that is wrong."""
    position: int | None = None
    """With 422 of a schedule: where in the text of `field`, from 0."""
    field: str | None = None


_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": description,
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, description in (
        (422, "A field is not as it must be"),
        ("default", "Any other error"),
    )
}


class _Application(FastAPI):
    """Tells in its own description how errors look, and what is answered without a key."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            spec = get_openapi(
                title=self.title,
                version=self.version,
                description=self.description,
                routes=self.routes,
            )
            parts = spec.setdefault("components", {})
            parts.setdefault("schemas", {})["Problem"] = Problem.model_json_schema(by_alias=True)
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            spec["security"] = [{"key": []}]
            for path in OPEN:
                spec["paths"][path]["get"]["security"] = []
            self.openapi_schema = spec
        return self.openapi_schema


def create_app(
    store: Store,
    clock: Clock,
    ids: Ids,
    routers: Sequence[APIRouter] = (),
    settings: ConsoleSettings | None = None,
    kinds: frozenset[str] | None = None,
) -> FastAPI:
    """The application over a store, with the routes of the domain given by `routers`.

    Args:
        kinds: which agents the deployment's hosts make by themselves, to say of others
            that nobody has given a class for them; None: nothing is said.
    """
    settings = settings or ConsoleSettings()
    bounded = DeadlineStore(store, settings.store_wait_s)
    keys = Keys(bounded, clock)
    gauge = Gauge(bounded, clock)
    console = Console(bounded, clock, ids, keys, FeedHub(bounded), gauge, settings, kinds=kinds)
    app = _Application(
        title="Troupe",
        version=VERSION,
        description="An AI engineering department. Keys go in the header: Authorization: Bearer.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        responses=_PROBLEM,
        dependencies=[Depends(_understood)],
        lifespan=_lifespan,
    )
    app.state.console = console
    app.router.default = _nowhere
    for router in (*routers, *GENERIC):
        app.include_router(router)
    app.add_exception_handler(HTTPException, problems.handle)
    app.add_exception_handler(RequestValidationError, problems.handle)
    # the one added last is met first
    app.add_middleware(BodyMiddleware)
    app.add_middleware(AuthMiddleware, keys=keys)
    app.add_middleware(problems.ProblemsMiddleware, ids=ids)
    app.add_middleware(HeadersMiddleware)
    app.add_middleware(MeterMiddleware, meter=console.meter)
    return app


async def _nowhere(_scope: Scope, _receive: Receive, _send: Send) -> NoReturn:
    """Nothing is at this path, for a request and for an upgrade alike."""
    raise problems.not_found()


async def _understood(connection: HTTPConnection) -> None:
    """Raise ProblemError for a parameter that would not count: come twice, or not the route's."""
    given = connection.query_params.multi_items()
    if not given:
        return
    known = _parameters(connection.scope["route"])
    wrong = [
        _parameter(name, "It is given more than once.", "repeated_parameter")
        if count > 1
        else _parameter(name, "Extra inputs are not permitted", "extra_forbidden")
        for name, count in Counter(name for name, _ in given).items()
        if count > 1 or (known is not None and name not in known)
    ]
    if wrong:
        raise problems.not_as_it_must_be(wrong)


def _parameters(route: Any) -> set[str] | None:
    """Those of a route's query; None: a model has them, and refuses others by itself."""
    fields = route.dependant.query_params
    kinds = (field.field_info.annotation for field in fields)
    if any(isinstance(kind, type) and issubclass(kind, WireModel) for kind in kinds):
        return None
    return {field.alias for field in fields}


def _parameter(name: str, message: str, code: str) -> dict[str, Any]:
    return {"loc": ("query", name), "msg": message, "type": code}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    console: Console = app.state.console
    upkeep = asyncio.create_task(_upkeep(console), name="upkeep")
    try:
        yield
    finally:
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)
        await console.feed.close()


async def _upkeep(console: Console) -> None:
    """Delete what is no longer kept, now and then; every replica may, none must."""
    while True:
        await asyncio.sleep(console.settings.upkeep_s)
        try:
            await once.sweep(console.store, console.clock)
        except StoreUnavailableError as error:
            logger.warning("upkeep failed: %s", error, extra={"action": "upkeep.failed"})
