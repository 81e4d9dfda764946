"""Troupe on Ray: the only package that imports ray.

Ray places, restarts and scales processes; it holds no truth.  `actors` are thin
shells around the runtime's plain objects, `supervisor` is the process that
keeps a machine's Ray head and the named actors there, `control` is how
`troupe up` and `troupe down` speak to it.  Everything can be killed at any
time: the store alone is enough to go on.
"""

from __future__ import annotations

from runtime.cluster.control import Running, down, local_store, running, started_with, starting, up
from runtime.cluster.settings import ClusterError, ClusterSettings, Companion

__all__ = [
    "ClusterError",
    "ClusterSettings",
    "Companion",
    "Running",
    "down",
    "local_store",
    "running",
    "started_with",
    "starting",
    "up",
]
