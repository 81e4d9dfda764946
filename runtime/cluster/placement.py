"""Which actors there are, under which names, and that they are there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from runtime.cluster import actors, nodes, pool
from runtime.cluster.settings import NAMESPACE, ClusterSettings

logger = logging.getLogger(__name__)

PING_TIMEOUT_S = 10.0
ATTEMPTS_MAX = 3
ON_THE_HEAD = {"num_cpus": 0, "resources": {nodes.HEAD: 0.001}}
"""Where the singletons are is known, and the embedded store's socket is there."""
SINGLETONS: Final[dict[str, type]] = {"scheduler": actors.Scheduler, "registry": actors.Registry}
"""By name; the first keeps the embedded store, so it is started first and ended last."""


def ensure(settings: ClusterSettings) -> None:
    """Create the actors that are not there; idempotent, and safe to race with itself."""
    for name, shell in SINGLETONS.items():
        _ensure(name, partial(_singleton, shell, name, settings))
    for number in range(settings.hosts):
        create = partial(pool.create, settings, actors.AgentHost, number)
        _ensure(pool.host_name(number), create)


def stop(settings: ClusterSettings) -> None:
    """Drain the hosts, then end every actor by its name."""
    for number in pool.present():
        pool.end(number)
    for name in reversed(SINGLETONS):
        try:
            ray.kill(ray.get_actor(name, namespace=NAMESPACE))
        except ValueError:
            continue


def _singleton(shell: type, name: str, settings: ClusterSettings) -> Any:
    options = {**pool.OPTIONS, **ON_THE_HEAD, "name": name}
    actor: Any = ray.remote(shell)
    return actor.options(**options).remote(settings.to_json())


def _ensure(name: str, create: Callable[[], Any]) -> None:
    """Get or create a named actor; one that is dead for good is created anew."""
    for _ in range(ATTEMPTS_MAX):
        handle = create()
        try:
            ray.get(handle.pid.remote(), timeout=PING_TIMEOUT_S)
        except GetTimeoutError:
            return  # restarting, busy, or waiting for a node: it is Ray's again
        except RayActorError:
            logger.warning("actor %s does not answer", name, extra={"action": "actor.missing"})
            continue
        return
