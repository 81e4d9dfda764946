"""A part of the load that a layer above brings: what it deploys, does and saw.

The run calls, in this order: `environment`, `begin`, `work` beside the other
clients, `stop` when nothing is struck any more, `tell` when everything is
down, and `end` whatever has happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from runtime.store.contract import Store
from runtime.verify.chaos.live import Live

Request = Callable[[str, str, dict[str, Any] | None], Awaitable[Any]]
"""(method, path, body): makes a request until it is answered 2xx; the answer."""


class Part(Protocol):
    """Who brings one gives its rules something to judge by, or the run was too little."""

    agents: str
    """As `ClusterSettings.agents`; with those of `target`."""
    application: str

    def environment(self, root: Path) -> Mapping[str, str]:
        """What the deployment's processes find in their environment; `root` is the run's."""

    async def begin(self, live: Live, hosts: Callable[[], Collection[int]]) -> None:
        """Be there before the deployment is; `hosts` answers the pids of its agent hosts."""

    async def work(self, request: Request) -> None:
        """Work until `stop`, and then until all that was begun has ended."""

    def stop(self) -> None:
        """Begin nothing more."""

    def busy(self) -> Collection[int]:
        """Pids of hosts that are worth striking now."""

    def missed(self) -> bool:
        """Whether no such host has been struck yet."""

    async def tell(self, store: Store) -> None:
        """Add the facts that are known only now."""

    async def end(self) -> None:
        """Leave nothing behind."""

    def figure(self) -> Mapping[str, Any]:
        """What was done, for the report."""

    def short(self, minutes: float) -> list[str]:
        """What too little was done of."""
