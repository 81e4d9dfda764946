"""What a verification answers: a figure, a sentence, and whether all is well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runtime.errors import TroupeError


class TooLittleError(TroupeError):
    """Something that a verification needs is not here."""


@dataclass
class Outcome:
    figure: dict[str, Any]
    """JSON-able; the same keys on every run."""
    sentence: str
    good: bool
    details: list[str] = field(default_factory=list)
    """Lines for whoever looks into it."""
