"""Which actors there are, under which names and options, and that they are there."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from runtime.cluster import actors
from runtime.cluster.settings import NAMESPACE, ClusterSettings

logger = logging.getLogger(__name__)

PING_TIMEOUT_S = 10.0
OPTIONS: dict[str, Any] = {
    "namespace": NAMESPACE,
    "lifetime": "detached",
    "get_if_exists": True,
    "num_cpus": 0,
    "max_restarts": -1,
    "max_task_retries": 0,
    "max_concurrency": 10_000,
    "enable_task_events": False,
    "resources": {"node:__internal_head__": 0.001},
}
"""All on the head: the embedded store is a socket there, and hosts need it beside them."""


def ensure(settings: ClusterSettings) -> None:
    """Create the actors that are not there; idempotent, and safe to race with itself."""
    config = settings.to_json()
    for name, shell in (
        ("store", actors.StoreActor),
        ("scheduler", actors.Scheduler),
        ("registry", actors.Registry),
    ):
        _ensure(name, lambda shell=shell, name=name: _singleton(shell, name, config))
    for number in range(settings.hosts):
        name = host_name(number)
        _ensure(name, lambda name=name: _host(name, config))


def host_name(number: int) -> str:
    return f"host-{number}"


def _singleton(shell: type, name: str, config: bytes) -> Any:
    return ray.remote(shell).options(name=name, **OPTIONS).remote(config)


def _host(name: str, config: bytes) -> Any:
    return ray.remote(actors.AgentHost).options(name=name, **OPTIONS).remote(config, name)


def _ensure(name: str, create: Any) -> None:
    """Get or create a named actor; one that is dead for good is created anew."""
    for _ in range(3):
        handle = create()
        try:
            ray.get(handle.pid.remote(), timeout=PING_TIMEOUT_S)
        except GetTimeoutError:
            return  # restarting or busy: it is Ray's again
        except RayActorError:
            logger.warning("actor %s does not answer", name, extra={"action": "actor.missing"})
            continue
        return


def stop(settings: ClusterSettings) -> None:
    """Drain the hosts, then end every actor by its name."""
    names = [*map(host_name, range(settings.hosts)), "scheduler", "registry", "store"]
    for name in names:
        try:
            handle = ray.get_actor(name, namespace=NAMESPACE)
            if name.startswith("host-"):
                ray.get(handle.drain.remote(), timeout=PING_TIMEOUT_S)
            ray.kill(handle)
        except (ValueError, RayActorError, GetTimeoutError):
            continue
