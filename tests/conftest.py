"""What holds for every test: a machine that stands still for a second makes none of them fail."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from runtime.store import redis_link

STANDSTILL_S = 20.0
"""A test run may be stopped for some seconds at any place, as on a machine that others share."""

# The examples are the same in every run: no change fails for what others have not met by chance.
settings.register_profile(
    "tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-server that answers after a second has not hung; `monkeypatch.undo` takes it back."""
    for name in ("CONNECT_S", "GREET_S", "ANSWER_S"):
        monkeypatch.setattr(redis_link, name, STANDSTILL_S)
