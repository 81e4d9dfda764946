"""What a failed try of a model call means: again, not now, ask a person, or never.

Ours and not the SDK's, because the SDK retries spend limits, sleeps as long as
a server tells it to, and does not see errors in mid-stream.  Pure but for the
breaker, which asks the clock; waiting is the client's business.
"""

from __future__ import annotations

import email.utils
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from actors.models.stream import MalformedAnswerError, StreamError
from runtime.backoff import Backoff
from runtime.clock import Clock

Verdict = Literal["again", "limit", "refused", "unusable"]
"""`again`: the same call may work later.  `limit`: a person must raise a limit.
`refused`: the request is wrong.  `unusable`: the answer is; one more try."""

ATTEMPTS_MAX = 6
UNUSABLE_MAX = 2
"""Tries that may end in an unusable answer: each was paid for."""
WAIT_IN_PLACE_S = 5.0
"""A longer wait is the caller's, and durable."""
RETRY_AFTER_MAX_S = 86_400.0
"""A server's wish beyond this is taken as this."""
BACKOFF = Backoff(base_s=0.5, cap_s=60.0)
BREAKER_FAILURES = 10
"""In a row, over all calls of one model, until it is left alone."""
BREAKER_OPEN_S = 30.0

_SPEND_LIMITS = frozenset(
    {
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    }
)
_AGAIN_TYPES = frozenset({"overloaded_error", "api_error", "timeout_error"})
MESSAGE_CHARS_MAX = 500
"""Of a server's message that we keep."""


@dataclass(frozen=True)
class Failure:
    """Why a try failed and what it means."""

    verdict: Verdict
    reason: str
    """A code."""
    retry_after_s: float | None = None
    """The server's wish."""
    status: int = 0
    message: str = ""

    def wait_s(self, retry: int, random: Callable[[], float]) -> float:
        """Before retry number `retry`: what the server asked for, else jittered backoff."""
        return max(self.retry_after_s or 0.0, BACKOFF.wait_s(retry, random))


def classify(error: Exception, clock: Clock) -> Failure | None:
    """What an exception of a try means; None: it is no failure of the model call."""
    import anthropic  # noqa: PLC0415 - `transport` says why it is not loaded before it is used
    import httpx2  # noqa: PLC0415

    if isinstance(error, anthropic.APIStatusError):
        return _of_response(error.status_code, error.response.headers, error.body, clock)
    if isinstance(error, StreamError):
        return _of_stream_error(error)
    if isinstance(error, MalformedAnswerError):
        return Failure("unusable", error.reason)
    if isinstance(error, (TimeoutError, anthropic.APITimeoutError, httpx2.TimeoutException)):
        return Failure("again", "timeout")
    if isinstance(error, anthropic.APIConnectionError):
        return Failure("again", "connection")
    # The SDK leaves errors in the middle of a body as its HTTP library raised them.
    broken = isinstance(error, (httpx2.HTTPError, httpx2.StreamError))
    return TRUNCATED if broken else None


TRUNCATED = Failure("again", "truncated_stream")
"""The stream ended in good order, before the message did."""


def _of_response(status: int, headers: Mapping[str, str], body: object, clock: Clock) -> Failure:
    kind, code, message = _error_of(body)
    retry_after_s = parse_retry_after(headers, clock)
    should = headers.get("x-should-retry")
    if code in _SPEND_LIMITS:
        return Failure("limit", code, None, status, message)
    if should == "true" or (should != "false" and _again(status, retry_after_s)):
        return Failure("again", kind or f"http_{status}", retry_after_s, status, message)
    if status == 429:
        return Failure("limit", code or "rate_limited", None, status, message)
    return Failure("refused", kind or f"http_{status}", None, status, message)


def _again(status: int, retry_after_s: float | None) -> bool:
    if status == 429:
        # Without retry-after a rate limit is not a matter of time; the provider says: do not retry.
        return retry_after_s is not None
    return status in (408, 409) or status >= 500


def _of_stream_error(error: StreamError) -> Failure:
    message = error.message[:MESSAGE_CHARS_MAX]
    if error.type in _AGAIN_TYPES:
        return Failure("again", error.type, None, 200, message)
    if error.type == "rate_limit_error":
        return Failure("limit", "rate_limited", None, 200, message)
    return Failure("refused", error.type, None, 200, message)


def _error_of(body: object) -> tuple[str, str, str]:
    """(type, error code, message) of an error body; empty where it has none."""
    error: Any = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "", "", ""
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    message = str(error.get("message", ""))[:MESSAGE_CHARS_MAX]
    return str(error.get("type") or ""), str(code or ""), message


def parse_retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds asked for by `retry-after-ms` or `retry-after` (seconds or a date), 0..a day."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        seconds = _number(value)
        if seconds is not None:
            return min(max(0.0, seconds * unit_s), RETRY_AFTER_MAX_S)
        if (date := email.utils.parsedate_tz(value)) is not None:
            until_s = email.utils.mktime_tz(date) - clock.now_ms() / 1000
            return min(max(0.0, until_s), RETRY_AFTER_MAX_S)
    return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


class Breaker:
    """Leaves a failing model alone for a while, for all agents of a process at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until_ms = 0

    def open_until_ms(self) -> int | None:
        """When calls may go out again; None: now."""
        return self._open_until_ms if self._clock.now_ms() < self._open_until_ms else None

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, retry_after_s: float | None) -> None:
        """Count a failure that may pass; a long wish of the server holds for everybody."""
        self._failures += 1
        wait_s = BREAKER_OPEN_S if self._failures >= BREAKER_FAILURES else 0.0
        if retry_after_s is not None and retry_after_s > WAIT_IN_PLACE_S:
            wait_s = max(wait_s, retry_after_s)
        if wait_s:
            until_ms = self._clock.now_ms() + round(wait_s * 1000)
            self._open_until_ms = max(self._open_until_ms, until_ms)
