"""The pool: as many hosts as the queue asks for, spread over the nodes.

Hosts pull their agents, so one more needs nobody's word to be of use, and one
that goes lets its agents go first.  A deployment has `hosts` at least; with
`hosts_max` above that the scheduler keeps the pool, growing it at once and
shrinking it one idle host at a time.  Where hosts run is Ray's decision, by the
size and the labels that a host asks for: a real size is what makes an
autoscaler add a machine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from runtime.cluster.settings import NAMESPACE, ClusterSettings

logger = logging.getLogger(__name__)

JOBS_A_HOST: Final = 4
"""Jobs that one host is thought to keep busy: they mostly wait, for models and tests."""
LOOK_S: Final = 2.0
SHRINK_AFTER_S: Final = 60.0
"""How long fewer hosts must have been enough before one is let go."""
ANSWER_S: Final = 10.0
DRAIN_S: Final = 60.0
PREFIX: Final = "host-"

OPTIONS: Final[dict[str, Any]] = {
    "namespace": NAMESPACE,
    "lifetime": "detached",
    "get_if_exists": True,
    "max_restarts": -1,
    "max_task_retries": 0,
    "max_concurrency": 10_000,
    "enable_task_events": False,
}
"""Of every actor of ours."""


def wanted(jobs: int, low: int, high: int) -> int:
    """How many hosts so many jobs, running or ready to run, ask for: `low` to `high`."""
    return max(low, min(high, ceil(jobs / JOBS_A_HOST)))


def host_name(number: int) -> str:
    return f"{PREFIX}{number}"


def create(settings: ClusterSettings, host: type, number: int) -> Any:
    """Get or create a host; where it goes is settled later, and its handle may wait for that."""
    name = host_name(number)
    options = {
        **OPTIONS,
        "name": name,
        "num_cpus": settings.host_cpus,
        "scheduling_strategy": "SPREAD",
    }
    if settings.host_labels:
        options["label_selector"] = dict(settings.host_labels)
    actor: Any = ray.remote(host)
    return actor.options(**options).remote(settings.to_json(), name)


def present() -> list[int]:
    """The numbers of the hosts there are, or that Ray is making, in order."""
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [one["name"] for one in named if one["namespace"] == NAMESPACE]
    return sorted(
        int(name.removeprefix(PREFIX))
        for name in names
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal()
    )


async def keep(
    settings: ClusterSettings, host: type, status: Callable[[], Mapping[str, Any]]
) -> None:
    """Keep the pool at the size the queue asks for, for ever.

    Args:
        host: the actor's class.
        status: the scheduler's, with its counts of `running` and `queued` jobs.
    """
    if settings.hosts_max <= settings.hosts:
        return
    clock = asyncio.get_running_loop().time
    enough_since = clock()
    while True:
        await asyncio.sleep(LOOK_S)
        told = status()
        jobs = int(told["running"]) + int(told["queued"])
        goal = wanted(jobs, settings.hosts, settings.hosts_max)
        try:
            there = await asyncio.to_thread(present)
            if len(there) <= goal:
                enough_since = clock()
                _grow(settings, host, there, goal)
            elif clock() - enough_since >= SHRINK_AFTER_S and await _let_go(there[goal:]):
                enough_since = clock()
        except (RayError, ConnectionError):  # a Ray that is in trouble: the next look tells
            logger.warning(
                "the pool could not be looked at", exc_info=True, extra={"action": "pool.unseen"}
            )


def _grow(settings: ClusterSettings, host: type, there: list[int], goal: int) -> None:
    for number in [n for n in range(goal) if n not in there]:
        logger.info("host %d is added", number, extra={"action": "pool.grown"})
        create(settings, host, number)


async def _let_go(surplus: list[int]) -> bool:
    """End the last of these hosts that runs no job; its agents go elsewhere first."""
    for number in reversed(surplus):
        try:
            handle = ray.get_actor(host_name(number), NAMESPACE)
            status: dict[str, Any] = await asyncio.wait_for(handle.status.remote(), ANSWER_S)
            if status["jobs"]:
                continue
            await asyncio.wait_for(handle.drain.remote(), DRAIN_S)
            ray.kill(handle)
        except (ValueError, RayActorError, TimeoutError):  # gone, or busy: the next look tells
            continue
        logger.info("host %d is let go", number, extra={"action": "pool.shrunk"})
        return True
    return False


def end(number: int) -> None:
    """Drain a host and end it; one that does not answer is ended all the same."""
    try:
        handle = ray.get_actor(host_name(number), NAMESPACE)
    except ValueError:
        return
    try:
        ray.get(handle.drain.remote(), timeout=ANSWER_S)
    except (RayActorError, GetTimeoutError):
        logger.warning("host %d did not drain", number, extra={"action": "pool.undrained"})
    ray.kill(handle)
