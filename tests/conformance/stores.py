"""The stores of this suite, with the tests' own redis-server."""

from __future__ import annotations

from pathlib import Path

from runtime.clock import ManualClock
from runtime.verify.conformance import stores
from runtime.verify.conformance.stores import DURABLE, FORGETTING
from tests.redis_server import shared_server

__all__ = ["DURABLE", "FORGETTING", "STORES", "Opened"]

STORES = stores.openers(lambda: shared_server().url)


class Opened(stores.Opened):
    """One of STORES."""

    def __init__(self, name: str, path: Path, clock: ManualClock) -> None:
        super().__init__(STORES[name], name in DURABLE, path, clock)
        self.name = name
