"""What an operator may set about the HTTP side; the bounds nobody sets are constants.

Reading the environment is left to who composes the application.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConsoleSettings:
    store_wait_s: float = 1.5
    """Seconds a read or a commit may take before the answer is 503."""
    command_wait_s: float = 5.0
    """Seconds to wait for the scheduler; the command stays accepted after it."""
    streams_max: int = 400
    """Event streams and sockets open at once in this process; one more gets 503 or 1013."""
    keep_alive_s: float = 15.0
    """Seconds of silence in an event stream before its place is told."""
    upkeep_s: float = 600.0
    """Seconds between two sweeps of old idempotency records."""
