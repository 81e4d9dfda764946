"""The shape of a chaos run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SQLITE: Final = ("host", "scheduler", "registry", "replica")
"""The scheduler has the store in its process."""
REDIS: Final = ("host", "scheduler", "registry", "replica", "redis")


@dataclass(frozen=True)
class Plan:
    minutes: float = 1.0
    seed: int = 1
    store: str = "sqlite"
    """`sqlite` or `redis`."""
    whole: bool = True
    """Whether Ray's own processes are struck too, and there is a second node."""
    strike_s: float = 3.0
    """Mean between two strikes."""
    left_out: str = ""
    """Why a part of the load is not there."""

    @property
    def kinds(self) -> Sequence[str]:
        kinds = REDIS if self.store == "redis" else SQLITE
        return (*kinds, "node") if self.whole else kinds
