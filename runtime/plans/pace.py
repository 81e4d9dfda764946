"""How fast what was missed is caught up: token buckets, one for all and one an organization. Pure.

A bucket holds one second's worth, so nothing is saved up for a storm.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

TOTAL_PER_S: Final = 10.0
ORGANIZATION_PER_S: Final = 5.0
ROUNDING: Final = 1e-6
"""So much less than one token counts as one."""
WAIT_S_MIN: Final = 0.001
ORGANIZATIONS_MAX: Final = 10_000
"""Buckets kept; beyond it full ones are forgotten."""


class _Bucket:
    __slots__ = ("at_s", "rate_s", "tokens")

    def __init__(self, rate_s: float, now_s: float) -> None:
        self.rate_s = rate_s
        self.tokens = rate_s
        self.at_s = now_s

    def fill(self, now_s: float) -> float:
        self.tokens = min(self.rate_s, self.tokens + (now_s - self.at_s) * self.rate_s)
        self.at_s = now_s
        return self.tokens

    def wait_s(self, now_s: float) -> float:
        missing = 1.0 - self.fill(now_s)
        return max(WAIT_S_MIN, missing / self.rate_s) if missing > ROUNDING else 0.0


class Pace:
    """Time is monotonic seconds."""

    def __init__(self) -> None:
        self._all: _Bucket | None = None
        self._buckets: dict[str, _Bucket] = {}

    def take(self, organization: str, now_s: float) -> bool:
        """Whether the organization may start one more now; if so, it has."""
        total, own = self._bucket(now_s), self._own(organization, now_s)
        if min(total.fill(now_s), own.fill(now_s)) < 1.0 - ROUNDING:
            return False
        total.tokens -= 1.0
        own.tokens -= 1.0
        return True

    def wait_s(self, organizations: Iterable[str], now_s: float) -> float:
        """When the first of these may start one."""
        own_s = min(self._own(one, now_s).wait_s(now_s) for one in organizations)
        return max(own_s, self._bucket(now_s).wait_s(now_s))

    def _bucket(self, now_s: float) -> _Bucket:
        if self._all is None:
            self._all = _Bucket(TOTAL_PER_S, now_s)
        return self._all

    def _own(self, organization: str, now_s: float) -> _Bucket:
        if organization not in self._buckets:
            if len(self._buckets) >= ORGANIZATIONS_MAX:
                self._buckets = {
                    name: one for name, one in self._buckets.items() if one.fill(now_s) < one.rate_s
                }
            self._buckets[organization] = _Bucket(ORGANIZATION_PER_S, now_s)
        return self._buckets[organization]
