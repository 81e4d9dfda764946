"""One model call of a conversation as recorded steps: what was answered, or why not.

Everything that can differ between two runs (the clock, prices, a provider's
mood, what a person has said meanwhile) is looked at inside a step's call and
its outcome recorded, so a resumed job decides as before.  A failed call is a
step of its own with its reason and its cost; the next try is another step.
Waiting is durable: the job gives its slot back.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from actors.budget import Account
from actors.conversation import Conversation
from actors.endings import Ending
from actors.models.client import ModelClient
from actors.models.errors import (
    BudgetSpentError,
    ModelAnswerError,
    ModelError,
    ModelLimitError,
    ModelNotConfiguredError,
    ModelRequestError,
    ModelUnavailableError,
    UnpricedModelError,
)
from actors.models.request import Json, ModelAnswer, ModelRequest
from actors.people import People
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.errors import JobWaiting
from runtime.job import Job, StepContext

NOT_CONFIGURED: Final = "model_not_configured"
NOT_CONFIGURED_WAIT_S: Final = 30.0
LIMIT_WAIT_S: Final = 600.0
"""Between looks whether a person has raised the provider's limit."""
TRIES_MAX: Final = 40
"""Recorded tries of one call, waits between them: about three hours of an absent model."""
BACKOFF: Final = Backoff(base_s=1.0, cap_s=300.0)

_ENDINGS: Final[dict[type[ModelError], str]] = {
    BudgetSpentError: "budget_cost",
    UnpricedModelError: "model_unpriced",
    ModelAnswerError: "model_answer_unusable",
    ModelRequestError: "model_request_refused",
}


class SwitchedError(Exception):
    """Another model is configured than the conversation was begun with. Args: its name."""


class WindowFullError(Exception):
    """The conversation does not fit into the model's window."""


class ModelCalls:
    """Asks the model for one job; `begun` is awaited before each call that is really made."""

    def __init__(
        self,
        job: Job,
        client: ModelClient,
        clock: Clock,
        account: Account,
        people: People,
        model: str,
        begun: Callable[[], Awaitable[None]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._client = client
        self._clock = clock
        self._account = account
        self._people = people
        self._model = model
        self._begun = begun
        self._monotonic = monotonic

    async def ask(self, key: str, conversation: Conversation, max_tokens: int) -> ModelAnswer:
        """The model's answer, recorded under `key`; failed tries under `key-2`, `key-3`...

        Raises:
            Ending: there will be none.
            JobWaiting: not now.
            SwitchedError, WindowFullError: a new segment is needed; recorded, too.
        """
        for number in range(1, TRIES_MAX + 1):
            request = conversation.request(max_tokens)
            said = await self._job.step(
                key if number == 1 else f"{key}-{number}",
                partial(self._call, conversation, max_tokens, number),
                kind="external",
                request={"digest": request.digest(), "maxTokens": max_tokens},
            )
            self._account.book(said)
            self._people.heard(conversation, said.get("heard", []))
            if "answer" in said:
                return ModelAnswer.from_json(said["answer"])
            self._not_answered(said)
        raise Ending("model_unavailable", f"{TRIES_MAX} tries.")

    def _not_answered(self, said: Json) -> None:
        if "ending" in said:
            raise Ending(said["ending"], said["detail"])
        if "model" in said:
            raise SwitchedError(said["model"])
        if said.get("windowFull"):
            raise WindowFullError
        if self._clock.now_ms() < said["retryAtMs"]:
            raise JobWaiting(said["waiting"], said["retryAtMs"])

    async def _call(
        self, conversation: Conversation, max_tokens: int, number: int, context: StepContext
    ) -> Json:
        if self._model != conversation.model:
            return {"model": self._model}
        await self._begun()
        heard = await self._people.news()
        request = self._people.asked(conversation, heard).request(max_tokens)
        twice_usd = self._client.reserve_usd(request) if context.repeated else None
        began = self._monotonic()
        said = await self._complete(request, number)
        said["ms"] = round((self._monotonic() - began) * 1000)
        said["heard"] = heard if "answer" in said else []
        if twice_usd is not None:
            # The killed run may have been answered and charged; nobody can be asked.
            said["possibleDuplicateUsd"] = twice_usd
        return said

    async def _complete(self, request: ModelRequest, number: int) -> Json:
        try:
            answer = await self._client.complete(request, budget_usd=self._account.left_usd)
        except ModelNotConfiguredError as error:
            raise JobWaiting(NOT_CONFIGURED, self._in(NOT_CONFIGURED_WAIT_S)) from error
        except ModelUnavailableError as error:
            retry_at_ms = max(error.retry_at_ms, self._in(BACKOFF.ceiling_s(number)))
            said: Json = {"waiting": error.reason, "retryAtMs": retry_at_ms}
            return self._failed(error, said)
        except ModelLimitError as error:
            said = {"waiting": error.reason, "retryAtMs": self._in(LIMIT_WAIT_S)}
            return self._failed(error, said)
        except ModelError as error:
            if isinstance(error, ModelRequestError) and _too_long(error):
                return self._failed(error, {"windowFull": True})
            ending = _ENDINGS.get(type(error), "model_answer_unusable")
            return self._failed(error, {"ending": ending, "detail": str(error)})
        tokens = answer.usage.total_tokens
        self._job.spend(answer.cost_usd or 0.0, tokens)
        return {"answer": answer.to_json(), "costUsd": answer.cost_usd or 0.0, "tokens": tokens}

    def _failed(self, error: ModelError, said: Json) -> Json:
        self._job.spend(error.spent_usd, 0)
        return {**said, "costUsd": error.spent_usd, "tokens": 0}

    def _in(self, seconds: float) -> int:
        return self._clock.now_ms() + round(seconds * 1000)


def _too_long(error: ModelRequestError) -> bool:
    words = error.message.lower()
    return error.status == 413 or "prompt is too long" in words or "context window" in words
