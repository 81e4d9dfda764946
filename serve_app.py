"""The composition root: settings -> store -> agents -> routes -> the Serve application.

    serve run serve_app:app

`troupe up` does the same on a Ray head of its own.  Everything that a process
of Troupe is made of is put together here, and only here; of a host that is
`actors.department`, which knows nothing of HTTP.
"""

from __future__ import annotations

import os
from typing import Any

from actors.intake.routes import routers
from runtime import logs
from runtime.clock import SystemClock
from runtime.cluster import http, stores
from runtime.console.app import create_app
from runtime.ids import Ids

AGENTS = "actors.department:agents"
KINDS = frozenset({"issue", "triage", "code", "research", "review", "delivery"})
"""Of what that makes; named here, because a replica need not load it."""


def build() -> Any:
    """The HTTP application of one replica."""
    settings = http.from_environment(AGENTS)
    if "TROUPE_SETTINGS" not in os.environ:
        http.stand_alone(settings)
    logs.configure(settings.log_level)
    clock = SystemClock()
    routes = routers(os.environ)
    return create_app(stores.client(settings), clock, Ids(clock), routes, kinds=KINDS)


app: Any = http.deployment(build, AGENTS).bind()
