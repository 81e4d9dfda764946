"""The model client: one complete answer for one request, within a budget.

An answer counts only when it is whole.  Nothing is sent that the budget could
not pay for, every failed try is priced and named, and a wait longer than a few
seconds is handed to the caller, who can wait durably.  Prompts and keys are
never logged.  What an answer means is the agent's business.

Source: the installed anthropic 2.11; `retry` says where we differ and why.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from actors.models.errors import (
    BudgetSpentError,
    ModelAnswerError,
    ModelLimitError,
    ModelNotConfiguredError,
    ModelRequestError,
    ModelUnavailableError,
    UnpricedModelError,
)
from actors.models.prices import BYTES_PER_TOKEN, Price, reserve_usd, settle_usd
from actors.models.request import Attempt, Json, ModelAnswer, ModelRequest, canonical
from actors.models.retry import (
    ATTEMPTS_MAX,
    TRUNCATED,
    UNUSABLE_MAX,
    WAIT_IN_PLACE_S,
    Breaker,
    Failure,
    classify,
)
from actors.models.settings import ModelSettings
from actors.models.stream import AnswerBuilder
from actors.models.transport import make_sdk, read_stream
from actors.models.wire import to_wire
from runtime.clock import Clock

if TYPE_CHECKING:
    import anthropic

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 1_800.0
"""Of one try, first byte to last; a slow drip of bytes ends here."""
RETRY_LATER_S = 60.0
"""Asked of the caller when all tries are used up."""


class ModelClient:
    """Calls the configured model; one for all agents of a process.

    Not picklable: build it inside the process that uses it.
    """

    def __init__(
        self,
        settings: ModelSettings,
        clock: Clock,
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._call_timeout_s = call_timeout_s
        self._breakers: dict[str, Breaker] = {}
        self._sdk: anthropic.AsyncAnthropic | None = None
        """There after the first call."""

    async def aclose(self) -> None:
        """Close the connections; the client is not to be used after."""
        if self._sdk is not None:
            await self._sdk.close()

    def reserve_usd(self, request: ModelRequest) -> float | None:
        """What the call may cost, at most; None when the model has no price."""
        return _reserve(self.settings.price(request.model), to_wire(request), request)

    async def complete(self, request: ModelRequest, budget_usd: float | None = None) -> ModelAnswer:
        """Ask the model and return its whole answer, whatever its stop_reason.

        Args:
            budget_usd: what may be spent, failed tries included; None: no limit.

        Raises:
            ModelNotConfiguredError: there is no model.
            UnpricedModelError: a budget, and a model without a price. Nothing was sent.
            BudgetSpentError: the (next) try could cost more than is left; it was not sent.
            ModelUnavailableError: not now; wait until its `retry_at_ms`.
            ModelLimitError: the account's limit; a person must act.
            ModelRequestError: the request was refused.
            ModelAnswerError: answers came that can't be used.
        """
        if not self.settings.configured:
            raise ModelNotConfiguredError()
        call = _Call(request, self.settings.price(request.model), budget_usd)
        breaker = self._breakers.setdefault(request.model, Breaker(self._clock))
        while True:
            call.check_budget()
            if (until_ms := breaker.open_until_ms()) is not None:
                raise ModelUnavailableError("circuit_open", until_ms, call.spent_usd)
            builder = AnswerBuilder()
            outcome = await self._try(await self._connected(), call.body, builder)
            if not isinstance(outcome, Failure):
                breaker.succeeded()
                return call.answer(builder, *outcome)
            if outcome.verdict == "again":
                breaker.failed(outcome.retry_after_s)
            await self._after_failure(call, builder, outcome)

    async def _connected(self) -> anthropic.AsyncAnthropic:
        """The SDK, made by the first call; beside the loop, whose other agents go on meanwhile."""
        if self._sdk is None:
            made = await asyncio.to_thread(make_sdk, self.settings)
            self._sdk = self._sdk or made  # another call may have been quicker
        return self._sdk

    async def _try(
        self, sdk: anthropic.AsyncAnthropic, body: Json, builder: AnswerBuilder
    ) -> tuple[Json, tuple[str, ...], str | None] | Failure:
        """(message, broken tools, request id), or why not."""
        try:
            async with asyncio.timeout(self._call_timeout_s):
                request_id = await read_stream(sdk, body, builder)
            if not builder.complete:
                return TRUNCATED
            return *builder.finish(), request_id
        except Exception as error:
            # Caught widely: the SDK, its HTTP library and the server's bytes all fail here.
            failure = classify(error, self._clock)
            if failure is None:
                raise
            return failure

    async def _after_failure(self, call: _Call, builder: AnswerBuilder, failure: Failure) -> None:
        """Wait in place for the next try, or raise what the failure means."""
        call.failed(failure, builder)
        tries = len(call.attempts)
        if failure.verdict == "again":
            wait_s = failure.wait_s(tries, self._random)
        elif failure.verdict == "unusable" and call.tries_ending_in(failure) < UNUSABLE_MAX:
            wait_s = 0.0
        else:
            _raise(failure, call.spent_usd)
        # A try that took its whole time is not repeated while the caller holds a slot.
        if tries >= ATTEMPTS_MAX or wait_s > WAIT_IN_PLACE_S or failure.reason == "timeout":
            raise self._later(call, failure, wait_s)
        call.waits(wait_s)
        logger.warning(
            "a model call failed and is tried again",
            extra={
                "action": "model.retried",
                "reason": failure.reason,
                "attempt": tries,
                "wait_s": wait_s,
                "model": call.request.model,
                "purpose": call.request.purpose,
            },
        )
        await self._sleep(wait_s)

    def _later(self, call: _Call, failure: Failure, wait_s: float) -> ModelUnavailableError:
        if failure.retry_after_s is None:
            wait_s = max(wait_s, RETRY_LATER_S * (1 + self._random()) / 2)
        retry_at_ms = self._clock.now_ms() + round(wait_s * 1000)
        return ModelUnavailableError(failure.reason, retry_at_ms, call.spent_usd)


class _Call:
    """The account of one `complete`."""

    def __init__(
        self, request: ModelRequest, price: Price | None, budget_usd: float | None
    ) -> None:
        self.request = request
        self.body = to_wire(request)
        self.attempts: list[Attempt] = []
        self._price = price
        self._budget_usd = budget_usd
        self._reserve_usd = _reserve(price, self.body, request)

    @property
    def spent_usd(self) -> float:
        return sum(attempt.cost_usd or 0.0 for attempt in self.attempts)

    def check_budget(self) -> None:
        if self._budget_usd is None:
            return
        if self._reserve_usd is None:
            raise UnpricedModelError(self.request.model)
        left_usd = self._budget_usd - self.spent_usd
        if self._reserve_usd > left_usd:
            raise BudgetSpentError(self._reserve_usd, left_usd, self.spent_usd)

    def tries_ending_in(self, failure: Failure) -> int:
        return sum(attempt.reason == failure.reason for attempt in self.attempts)

    def failed(self, failure: Failure, builder: AnswerBuilder) -> None:
        self.attempts.append(Attempt(failure.reason, 0.0, self._cost_of(builder)))

    def waits(self, wait_s: float) -> None:
        self.attempts[-1] = replace(self.attempts[-1], waited_s=wait_s)

    def _cost_of(self, builder: AnswerBuilder) -> float | None:
        """What a failed try may have cost: the prompt as told, the output as far as it came."""
        usage = builder.usage
        if usage.prompt_tokens == 0:
            return None if self._price is None else 0.0
        seen = min(math.ceil(builder.size / BYTES_PER_TOKEN), self.request.max_tokens)
        partial = replace(usage, output_tokens=max(usage.output_tokens, seen))
        return settle_usd(self._price, partial)

    def answer(
        self,
        builder: AnswerBuilder,
        message: Json,
        broken_tools: tuple[str, ...],
        request_id: str | None,
    ) -> ModelAnswer:
        usage = builder.usage
        cost_usd = settle_usd(self._price, usage)
        if usage.total_tokens == 0:
            # The server counts nothing: what was reserved is what we know.
            cost_usd = self._reserve_usd
        return ModelAnswer(
            raw=message,
            usage=usage,
            cost_usd=None if cost_usd is None else cost_usd + self.spent_usd,
            request_id=request_id,
            attempts=tuple(self.attempts),
            broken_tools=broken_tools,
        )


def _raise(failure: Failure, spent_usd: float) -> NoReturn:
    if failure.verdict == "limit":
        raise ModelLimitError(failure.reason, failure.message, spent_usd)
    if failure.verdict == "unusable":
        raise ModelAnswerError(failure.reason, spent_usd)
    raise ModelRequestError(failure.status, failure.reason, failure.message, spent_usd)


def _reserve(price: Price | None, body: Json, request: ModelRequest) -> float | None:
    return reserve_usd(price, len(canonical(body)), request.max_tokens)
