"""How a conversation can end: every stop has a name, and the name says what to do next.

`Ending` is raised where the end is decided and caught in one place, the loop.
It is control flow of one process and never crosses to another; what is kept of
it is the outcome and the sentence in the job's result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

OUTCOMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "finished": "The work is done.",
        "reported": "The report is written.",
        "reviewed": "The review is written.",
        "no_change": "The agent says it is done, but nothing was changed.",
        "budget_rounds": "All rounds are used up.",
        "budget_tokens": "All tokens are used up.",
        "budget_cost": "The next model call could cost more than is left.",
        "budget_wall": "The working time is used up.",
        "stuck": "The agent repeated itself, even when told so.",
        "no_tool_calls": "The agent talked instead of working, even when told so.",
        "refused_by_model": "The model refuses this task.",
        "answer_too_long": "The model's answer did not fit, even into twice the room.",
        "answer_incomplete": "The model's answers were not whole.",
        "context_full": "The conversation outgrew the model's window a second time.",
        "model_request_refused": "The provider refuses the request.",
        "model_answer_unusable": "The model's answers can't be used.",
        "model_unavailable": "The model could not be reached for too long.",
        "model_unpriced": "The model has no price, so no budget can hold; name one in "
        "TROUPE_MODEL_PRICES.",
        "setup_failed": "The repository's setup command failed, so no work was begun.",
        "not_allowed": "The repository's policy does not allow this agent.",
    }
)
"""Outcome of a job -> what it says to a person."""


class Ending(Exception):
    """The conversation ends here.

    Args: outcome (one of OUTCOMES), detail (for the summary), data (of the tool that ended it).
    """

    def __init__(self, outcome: str, detail: str = "", data: Any = None) -> None:
        super().__init__(outcome, detail, data)
        self.outcome = outcome
        self.detail = detail
        self.data = data

    @property
    def summary(self) -> str:
        """The sentence of the outcome, and what was special about this one."""
        return f"{OUTCOMES[self.outcome]} {self.detail}".strip()
