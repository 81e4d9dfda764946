"""What an activation needs of the host it lives in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.group import GroupCommitter
from runtime.hosting.answers import Answers
from runtime.ids import Ids
from runtime.store.contract import Send, Store

if TYPE_CHECKING:
    from runtime.hosting.activation import Activation


class HostServices(Protocol):
    store: Store
    group: GroupCommitter
    clock: Clock
    ids: Ids
    random: Callable[[], float]
    backoff: Backoff
    answers: Answers
    alone: asyncio.Lock
    """Held by what must not be under way beside its like; see `suspects`."""
    quarantined: int
    """Messages and runs given up so far because hosts had died of them."""
    finished: dict[Activation, None]
    """Activations that have finished messages which a poll might bring again."""

    def handled(self, seq: int) -> None:
        """A message was handled at once, durably: no poll will bring it."""

    def delivered(self, sender: str | None, sends: Sequence[Send], seqs: tuple[int, ...]) -> None:
        """What an agent has sent is durable: hand over what is for this host's agents."""

    def lost(self, activation: Activation) -> None:
        """The activation is worthless: forget it and let the agent be claimed anew."""
