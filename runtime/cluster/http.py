"""The HTTP application on Ray Serve: stateless replicas over the store.

Under a supervisor each replica answers on the public port itself (`port`), so
they are where that is, on the head; elsewhere Serve's proxies are before them.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ray import serve
from ray.serve.config import ProxyLocation

from runtime.cluster import metering, placement
from runtime.cluster.operator import ensure_admin_key
from runtime.cluster.port import answered
from runtime.cluster.settings import ClusterSettings
from runtime.collector import REQUESTS, relax

logger = logging.getLogger(__name__)

APPLICATION = "troupe"
SETTINGS = "TROUPE_SETTINGS"
"""Environment variable by which a supervisor tells its settings."""
REQUESTS_MAX = 500
"""Requests in flight a replica; each open event stream holds one."""


def deploy(settings: ClusterSettings) -> None:
    """Serve the application on the supervisor's port; returns when it answers."""
    serve.start(proxy_location=ProxyLocation.Disabled)
    module, _, name = settings.application.partition(":")
    application = getattr(importlib.import_module(module), name)
    serve.run(application, name=APPLICATION, route_prefix="/", _local_testing_mode=False)


def deployment(build: Callable[[], Any], agents: str) -> Any:
    """The Serve deployment of an application.

    Args:
        build: makes the application of one replica, there.
        agents: as for `from_environment`.
    """
    supervised = SETTINGS in os.environ

    def built() -> Any:
        app = _metered(build())
        relax(REQUESTS)
        return _on_the_port(app) if supervised else app

    return serve.deployment(
        serve.ingress(built)(),
        name="Api",
        num_replicas=from_environment(agents).replicas,
        max_ongoing_requests=REQUESTS_MAX,
        ray_actor_options=placement.ON_THE_HEAD if supervised else {"num_cpus": 0},
        graceful_shutdown_timeout_s=5,
        health_check_period_s=2,
    )


def _on_the_port(app: Any) -> Any:
    """The application, which answers on the public port from its start to its end."""
    lifespan = app.router.lifespan_context
    path = ClusterSettings.from_json(os.environ[SETTINGS]).directory.port

    @asynccontextmanager
    async def both(app: Any) -> AsyncIterator[Any]:
        async with lifespan(app) as state, answered(app, path):
            yield state

    app.router.lifespan_context = both
    return app


def _metered(app: Any) -> Any:
    """The application, whose figures are Ray's metrics from its start to its end."""
    lifespan, console = app.router.lifespan_context, app.state.console

    async def look() -> None:
        console.meter.set("troupe_streams", console.feed.readers)

    @asynccontextmanager
    async def both(app: Any) -> AsyncIterator[Any]:
        exporting = asyncio.create_task(metering.export(console.meter, look), name="metering")
        try:
            async with lifespan(app) as state:
                yield state
        finally:
            exporting.cancel()

    app.router.lifespan_context = both
    return app


def from_environment(agents: str) -> ClusterSettings:
    """The settings a replica was started with; without a supervisor those of the environment.

    Args:
        agents: `module:function` of the agents' factories, where no supervisor has said so.
    """
    text = os.environ.get(SETTINGS)
    if text:
        return ClusterSettings.from_json(text)
    return ClusterSettings.from_env(os.environ, agents=agents)


def stand_alone(settings: ClusterSettings) -> None:
    """What the supervisor does elsewhere: create the actors and the operator's key.

    For an application that `serve run` or `serve deploy` has started on a Ray
    of the operator's own. Called on a replica's loop; idempotent.
    """
    settings.directory.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    placement.ensure(settings)
    work = asyncio.get_running_loop().create_task(ensure_admin_key(settings))
    _working.add(work)
    work.add_done_callback(_working.discard)


_working: set[asyncio.Task[None]] = set()
