"""Whether the wall clock is to be believed: it is compared with one that never jumps.

A jump forward would make everything in between late, and settle it for good.  So
after one of more than STEP_S the clock is not believed for a while: what was a
mistake has gone back by then, what was none has only cost that while.  A jump
back needs nothing: what is decided is never decided again.
"""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger(__name__)

STEP_S: Final = 300.0


class ClockWatch:
    """Told of both clocks, now and then."""

    def __init__(self, doubt_s: float) -> None:
        """
        Args:
            doubt_s: how long a clock that has jumped is not believed.
        """
        self._doubt_s = doubt_s
        self._ahead_ms: float | None = None
        """How far the wall clock is ahead of the other."""
        self._until_s = 0.0

    def look(self, wall_ms: int, steady_s: float) -> bool:
        """Whether the wall clock is to be believed now."""
        ahead_ms = wall_ms - steady_s * 1000
        before, self._ahead_ms = self._ahead_ms, ahead_ms
        if before is not None and ahead_ms - before > STEP_S * 1000:
            self._until_s = steady_s + self._doubt_s
            jumped_s = round((ahead_ms - before) / 1000)
            logger.warning(
                "the clock has jumped forward by %d s",
                jumped_s,
                extra={"action": "clock.suspect", "seconds": jumped_s},
            )
        return self.believed(steady_s)

    def believed(self, steady_s: float) -> bool:
        """As of the last look."""
        return steady_s >= self._until_s
