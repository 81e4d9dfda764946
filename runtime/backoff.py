"""How long to wait before trying again: exponential with full jitter.

Source: Brooker, "Exponential Backoff And Jitter" (2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """1 s, 2 s, 4 s ... up to the cap, each multiplied by a random number in [0, 1)."""

    base_s: float = 1.0
    cap_s: float = 300.0
    """No wait is longer than this."""

    def ceiling_s(self, retry: int) -> float:
        """The wait without jitter before retry number `retry` (1-based)."""
        return float(min(self.cap_s, self.base_s * 2 ** min(retry - 1, 62)))

    def wait_s(self, retry: int, random: Callable[[], float]) -> float:
        """The wait before retry number `retry` (1-based), jittered."""
        return self.ceiling_s(retry) * random()
