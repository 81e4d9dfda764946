"""Noticing that an agent goes in circles.

Three shapes are known: the same call with the same answer, the same error
again and again, and two calls taking turns.  What varies by itself (durations,
addresses) does not make two answers different.  What to do about it is the
loop's business: one nudge, then the end.

Source: OpenHands' StuckDetector.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from typing import Any, Final

SAME_MAX: Final = 3
"""Same call and same answer, in a row."""
ERRORS_MAX: Final = 4
"""Same error, in a row, whatever was called."""
ALTERNATING_MAX: Final = 6
"""Calls of the shape A B A B A B."""

_VARYING = re.compile(r"\b\d+(\.\d+)? ?(ms|s|seconds)\b|0x[0-9a-f]+")


class StuckDetector:
    """Sees every call with its answer."""

    def __init__(self) -> None:
        self._seen: deque[tuple[str, str, bool]] = deque(maxlen=ALTERNATING_MAX)

    def observe(self, name: str, arguments: Any, output: str, is_error: bool) -> str | None:
        """Take note of a call; a sentence once the agent is stuck."""
        action = _digest(json.dumps([name, arguments], sort_keys=True, default=str))
        self._seen.append((action, _digest(_VARYING.sub("", output)), is_error))
        return self._same() or self._errors() or self._alternating()

    def forget(self) -> None:
        """Begin anew, after the agent was told."""
        self._seen.clear()

    def _same(self) -> str | None:
        last = list(self._seen)[-SAME_MAX:]
        if len(last) == SAME_MAX and len(set(last)) == 1:
            return f"The same call gave the same answer {SAME_MAX} times."
        return None

    def _errors(self) -> str | None:
        last = list(self._seen)[-ERRORS_MAX:]
        errors = {output for _, output, is_error in last if is_error}
        if len(last) == ERRORS_MAX and len(errors) == 1 and all(error for _, _, error in last):
            return f"The same error came {ERRORS_MAX} times."
        return None

    def _alternating(self) -> str | None:
        seen = list(self._seen)
        if len(seen) < ALTERNATING_MAX:
            return None
        if len(set(seen[::2])) == 1 and len(set(seen[1::2])) == 1 and seen[0] != seen[1]:
            return f"Two calls took turns {ALTERNATING_MAX} times with the same answers."
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
