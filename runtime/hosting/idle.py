"""Which agents of a host have had nothing to do for long enough to leave memory.

Time is counted in looks: that an agent has worked is a flag it sets, which costs a
message less than the time of it would.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

LOOKS: Final = 4
"""An agent found idle so often in a row leaves; so the time it has is between that many
intervals of looking and one more."""


class Worker(Protocol):
    used: bool
    """Whether it has worked since the last look, which says no."""

    @property
    def idle(self) -> bool:
        """Nothing to do and nothing being done."""


W = TypeVar("W", bound=Worker)


class Idle:
    def __init__(self) -> None:
        self._found: dict[Worker, int] = {}
        """Idle at so many looks until now."""

    def look(self, workers: Iterable[W]) -> list[W]:
        """Those that are to leave."""
        before, self._found = self._found, {}
        leaving: list[W] = []
        for worker in workers:
            if worker.used or not worker.idle:
                worker.used = False
            elif (looks := before.get(worker, 0) + 1) < LOOKS:
                self._found[worker] = looks
            else:
                leaving.append(worker)
        return leaving
