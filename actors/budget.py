"""The budget of one job: rounds, tokens, dollars and working time, and what is used of it.

Used up is counted from what the journal recorded and never from a clock, so a
resumed job comes to the same decisions: waiting, crashes and pauses cost
nothing.  Nothing begins that could exceed the budget; a model call is refused
before it is made (`ModelClient` reserves against `left_usd`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.policy import Budgets
from runtime.job import JobConfig


@dataclass(frozen=True)
class Budget:
    """What a job may use."""

    rounds_max: int
    tokens_max: int
    cost_usd_max: float
    wall_s: float

    @classmethod
    def of(cls, config: JobConfig, wanted: Budgets) -> Budget:
        """The lower of what the operator gives and what the repository asks for."""
        minutes = wanted.wall_minutes
        return cls(
            min(config.rounds_max, wanted.rounds or config.rounds_max),
            min(config.tokens_max, wanted.tokens or config.tokens_max),
            min(config.cost_usd_max, wanted.cost_usd or config.cost_usd_max),
            min(config.timeout_s, minutes * 60 if minutes else config.timeout_s),
        )


@dataclass
class Account:
    """What a job has used, by its recorded steps."""

    budget: Budget
    rounds: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    wall_ms: int = 0

    @property
    def left_usd(self) -> float:
        return self.budget.cost_usd_max - self.cost_usd

    def book(self, said: Mapping[str, Any]) -> None:
        """Take a recorded step's cost, tokens and time into account."""
        self.cost_usd += said.get("costUsd", 0.0)
        self.tokens += said.get("tokens", 0)
        self.wall_ms += said.get("ms", 0)

    def used_up(self) -> tuple[str, str] | None:
        """The outcome and a sentence, once nothing more may begin."""
        budget = self.budget
        if self.rounds >= budget.rounds_max:
            return "budget_rounds", f"{self.rounds} of {budget.rounds_max}."
        if self.tokens >= budget.tokens_max:
            return "budget_tokens", f"{self.tokens} of {budget.tokens_max}."
        if self.left_usd <= 0:
            return "budget_cost", f"${self.cost_usd:.4f} of ${budget.cost_usd_max:.2f} are spent."
        if self.wall_ms >= budget.wall_s * 1000:
            return "budget_wall", f"{self.wall_ms / 1000:.0f} of {budget.wall_s:.0f} s."
        return None
