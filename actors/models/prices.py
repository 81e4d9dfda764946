"""Prices: what a model call may cost before it is made, and did cost after.

A model that is not in the table has no price: its cost is None, never 0, and a
run with a cost limit may not use it.  The table is dated; a price is kept in
the journal by the cost it led to, so changing the table changes no history.

Source: platform.claude.com, models pages, read on 2026-11-20; the cache
reads of Sonnet 5.5 and the prices of Haiku 5.5 from two price trackers that
name the change of 2026-10-07.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.models.request import Usage
from runtime.errors import SettingsError

SCRIPTED_MODEL = "troupe-scripted-1"
BYTES_PER_TOKEN = 3.2
"""Fewer than any text we measured; bytes, because one CJK character is about one token."""
_MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    input: float
    output: float
    write_5m: float
    write_1h: float
    read: float
    long_over: int | None = None
    """Prompts above this many tokens (cached ones included) cost `long` on every token."""
    long: Price | None = None
    fictional: bool = False
    """True for the scripted model: the numbers exist so that budgets can be tried."""

    def for_prompt(self, tokens: int) -> Price:
        """The price that applies to a call with a prompt of so many tokens."""
        if self.long is not None and self.long_over is not None and tokens > self.long_over:
            return self.long
        return self


def _standard(input: float, output: float, read: float) -> Price:
    """Cache writes cost 1.25 (5 minutes) and 2 (1 hour) times the input on every model."""
    return Price(input, output, input * 1.25, input * 2, read)


_HAIKU_LONG = _standard(0.50, 2.50, 0.05)
PRICES: Mapping[str, Price] = {
    "claude-fable-5-1": _standard(10, 50, 0.25),
    "claude-fable-5": _standard(10, 50, 1.00),
    "claude-opus-5-5": _standard(4, 20, 0.20),
    "claude-opus-5": _standard(5, 25, 0.50),
    "claude-opus-4-8": _standard(5, 25, 0.50),
    "claude-opus-4-7": _standard(5, 25, 0.50),
    "claude-opus-4-6": _standard(5, 25, 0.50),
    "claude-opus-4-5": _standard(5, 25, 0.50),
    "claude-opus-4-5-20251101": _standard(5, 25, 0.50),
    "claude-sonnet-5-5": _standard(2, 10, 0.10),
    "claude-sonnet-5": _standard(2, 10, 0.20),
    "claude-sonnet-4-6": _standard(3, 15, 0.30),
    "claude-sonnet-4-5": _standard(3, 15, 0.30),
    "claude-sonnet-4-5-20250929": _standard(3, 15, 0.30),
    "claude-haiku-5-5": Price(0.10, 0.50, 0.125, 0.20, 0.01, long_over=100_000, long=_HAIKU_LONG),
    "claude-haiku-4-5": _standard(1, 5, 0.10),
    "claude-haiku-4-5-20251001": _standard(1, 5, 0.10),
    SCRIPTED_MODEL: Price(4, 20, 5, 8, 0.20, fictional=True),
}


def tokens_bound(body_bytes: int) -> int:
    """How many tokens a request of so many bytes has, at most."""
    return math.ceil(body_bytes / BYTES_PER_TOKEN)


def reserve_usd(price: Price | None, body_bytes: int, max_tokens: int) -> float | None:
    """What a call may cost: nothing of the prompt cached yet, and every output token used."""
    if price is None:
        return None
    prompt = tokens_bound(body_bytes)
    rate = price.for_prompt(prompt)
    return (prompt * max(rate.input, rate.write_5m) + max_tokens * rate.output) / _MILLION


def settle_usd(price: Price | None, usage: Usage) -> float | None:
    """What a call did cost."""
    if price is None:
        return None
    rate = price.for_prompt(usage.prompt_tokens)
    return (
        usage.input_tokens * rate.input
        + usage.output_tokens * rate.output
        + usage.write_5m_tokens * rate.write_5m
        + usage.write_1h_tokens * rate.write_1h
        + usage.read_tokens * rate.read
    ) / _MILLION


def parse_prices(text: str) -> dict[str, Price]:
    """Read TROUPE_MODEL_PRICES: `{"my-model": {"input": 0.5, "output": 1.5}}`.

    Absent cache prices are the input's; a model that costs nothing is written
    with zeros, on purpose.

    Raises:
        SettingsError: not that form, or a price below zero.
    """
    try:
        return {str(name): _operator_price(value) for name, value in json.loads(text).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError("TROUPE_MODEL_PRICES", str(error)) from error


def _operator_price(value: dict[str, Any]) -> Price:
    known = {"input", "output", "write5m", "write1h", "read"}
    if unknown := set(value) - known:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}; known are {sorted(known)}")
    given = {key: float(amount) for key, amount in value.items()}
    if any(not 0 <= amount < math.inf for amount in given.values()):
        raise ValueError("a price is a number of dollars, 0 or more")
    base = given["input"]
    return Price(
        base,
        given["output"],
        given.get("write5m", base),
        given.get("write1h", base),
        given.get("read", base),
    )
