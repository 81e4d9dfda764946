"""What a chaos run deploys: the simulation's workload, and the runtime's own HTTP API."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from runtime.clock import SystemClock
from runtime.cluster import ClusterSettings, http, stores
from runtime.console.app import create_app
from runtime.ids import Ids
from runtime.kinds import Factory
from runtime.verify.chaos.outside import RemoteOutside
from runtime.verify.chaos.watch import folder, notes
from runtime.verify.workload import factories

AGENTS: Final = "runtime.verify.chaos.target:agents"
APPLICATION: Final = "runtime.verify.chaos.target:app"
OUTSIDE: Final = "TROUPE_CHAOS_OUTSIDE"
"""Environment variable: the outside's socket."""


def agents() -> Mapping[str, Factory]:
    """The factories of the workload's kinds, for a host."""
    mine = notes(folder(ClusterSettings.from_json(os.environ["TROUPE_SETTINGS"])))
    return factories(RemoteOutside(os.environ[OUTSIDE], mine), mine.proc)


def build() -> Any:
    """The HTTP application of one replica: the runtime's own routes."""
    clock = SystemClock()
    return create_app(stores.client(http.from_environment(AGENTS)), clock, Ids(clock))


app: Any = http.deployment(build, AGENTS).bind()
