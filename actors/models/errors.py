"""The errors of the model client: each says what the caller should do next.

Unavailable: wait durably until `retry_at_ms`.  Limit: wait for a person.
Request, answer: do not repeat as it is.  Budget: stop the run.  `spent_usd` is
what the call had cost, at most, when it failed; a failed call is not free.
"""

from __future__ import annotations

from actors.errors import AgentError

SCRIPT_NO_MATCH = "script_no_match"
"""The type of `ModelRequestError` when the scripted model has no scene for a request."""


class ModelError(AgentError):
    """The model did not give a usable answer."""

    spent_usd: float = 0.0


class ModelNotConfiguredError(ModelError):
    """No model is configured: set ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL."""


class ModelUnavailableError(ModelError):
    """The model can't be reached now; try again later.

    Args: reason (a code such as `overloaded`), retry_at_ms (wall time before
    which it is no use), spent_usd.
    """

    def __init__(self, reason: str, retry_at_ms: int, spent_usd: float = 0.0) -> None:
        super().__init__(reason, retry_at_ms, spent_usd)
        self.reason = reason
        self.retry_at_ms = retry_at_ms
        self.spent_usd = spent_usd

    def __str__(self) -> str:
        return f"The model can't be reached now ({self.reason})"


class ModelLimitError(ModelError):
    """The provider refuses to serve this account until a person changes a limit.

    Args: reason (a code such as `enforced_spend_limit_reached`), message (the
    provider's), spent_usd.
    """

    def __init__(self, reason: str, message: str = "", spent_usd: float = 0.0) -> None:
        super().__init__(reason, message, spent_usd)
        self.reason = reason
        self.message = message
        self.spent_usd = spent_usd

    def __str__(self) -> str:
        detail = f": {self.message}" if self.message else ""
        return f"The provider's limit for this account is reached ({self.reason}{detail})"


class ModelRequestError(ModelError):
    """The provider refused the request; sending it again would be refused again.

    Args: status (HTTP), type (the provider's error type), message, spent_usd.
    """

    def __init__(self, status: int, type: str, message: str, spent_usd: float = 0.0) -> None:
        super().__init__(status, type, message, spent_usd)
        self.status = status
        self.type = type
        self.message = message
        self.spent_usd = spent_usd

    def __str__(self) -> str:
        return f"The model refused the request ({self.status} {self.type}: {self.message})"


class ModelAnswerError(ModelError):
    """The answer came whole but can't be used, even when asked for twice.

    Args: reason (a code such as `duplicate_tool_ids`), spent_usd.
    """

    def __init__(self, reason: str, spent_usd: float = 0.0) -> None:
        super().__init__(reason, spent_usd)
        self.reason = reason
        self.spent_usd = spent_usd

    def __str__(self) -> str:
        return f"The model's answer can't be used ({self.reason})"


class BudgetSpentError(ModelError):
    """The next call could cost more than is left of the budget; it was not made.

    Args: reserve_usd (upper bound of the call), left_usd, spent_usd.
    """

    def __init__(self, reserve_usd: float, left_usd: float, spent_usd: float = 0.0) -> None:
        super().__init__(reserve_usd, left_usd, spent_usd)
        self.reserve_usd = reserve_usd
        self.left_usd = left_usd
        self.spent_usd = spent_usd

    def __str__(self) -> str:
        return (
            f"The next model call may cost ${self.reserve_usd:.4f} and ${self.left_usd:.4f} is left"
        )


class UnpricedModelError(ModelError):
    """A run with a cost limit can't use a model without a price: set TROUPE_MODEL_PRICES.

    Args: model.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model
