"""What a chaos run with the department deploys: our agents and routes beside the workload's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from actors import department
from actors.intake.routes import routers
from runtime.clock import SystemClock
from runtime.cluster import http, stores
from runtime.console.app import create_app
from runtime.ids import Ids
from runtime.kinds import Factory
from runtime.verify.chaos import target

AGENTS: Final = "actors.verification.target:agents"
APPLICATION: Final = "actors.verification.target:app"


def agents() -> Mapping[str, Factory]:
    """The factories of a host."""
    return {**target.agents(), **department.agents()}


def build() -> Any:
    """The HTTP application of one replica."""
    clock = SystemClock()
    store = stores.client(http.from_environment(AGENTS))
    return create_app(store, clock, Ids(clock), routers=routers(os.environ))


app: Any = http.deployment(build, AGENTS).bind()
