"""What a failure means and when to come back."""

from __future__ import annotations

import email.utils

import pytest

from actors.models.retry import (
    BREAKER_FAILURES,
    BREAKER_OPEN_S,
    RETRY_AFTER_MAX_S,
    Breaker,
    Failure,
    parse_retry_after,
)
from runtime.clock import ManualClock


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "99999999999"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "whenever"}, None),
    ],
)
def test_retry_after_is_read_and_bounded(headers, seconds):
    """A server could put a run to sleep for a century, or crash it with a word."""
    assert parse_retry_after(headers, ManualClock()) == seconds


def test_retry_after_may_be_a_date():
    """A date would be taken for no wish at all, and a limit for a refusal."""
    clock = ManualClock(1_700_000_000_000)
    date = email.utils.formatdate(1_700_000_090, usegmt=True)
    assert parse_retry_after({"retry-after": date}, clock) == 90


def test_a_wait_is_never_shorter_than_the_server_asked():
    """A provider that asked for ten seconds would be called again after one."""
    assert Failure("again", "x", retry_after_s=10).wait_s(1, lambda: 0.5) == 10
    assert Failure("again", "x").wait_s(3, lambda: 0.5) == 1.0
    assert Failure("again", "x").wait_s(60, lambda: 1.0) == 60.0


def test_the_breaker_opens_after_many_failures_in_a_row_and_closes_by_time():
    """A hundred agents would hammer a provider that is down."""
    clock = ManualClock()
    breaker = Breaker(clock)
    for _ in range(BREAKER_FAILURES - 1):
        breaker.failed(None)
    assert breaker.open_until_ms() is None
    breaker.succeeded()
    for _ in range(BREAKER_FAILURES):
        breaker.failed(None)
    assert breaker.open_until_ms() == clock.now_ms() + BREAKER_OPEN_S * 1000
    clock.advance(BREAKER_OPEN_S)
    assert breaker.open_until_ms() is None
    breaker.failed(None)
    assert breaker.open_until_ms() is not None


def test_a_long_wish_of_the_server_holds_for_every_agent():
    """Each agent would have to be told by the provider itself that it is over its limit."""
    breaker = Breaker(ManualClock(0))
    breaker.failed(2)
    assert breaker.open_until_ms() is None
    breaker.failed(600)
    breaker.failed(20)
    assert breaker.open_until_ms() == 600_000
