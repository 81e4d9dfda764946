"""Idempotency-Key: the same request twice has one effect and one answer.

    document  (`idempotency`, organization/route/hash of key)   terms day=

The record is written in the commit that has the effect, and must be absent
there: of two requests at once one wins and the other finds its record.  It
keeps either the answer or the id of the message whose answer is the answer.
The same key with another path, query or body is refused.  Records are kept for
`KEPT_DAYS`; after that a key is new again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Header
from starlette.requests import Request

from runtime.client import ConflictError, Write, expect_absent
from runtime.clock import Clock
from runtime.console.caller import Caller
from runtime.console.problems import ProblemError, instance_of
from runtime.store.contract import BATCH_MAX, Commit, Put, Store

COLLECTION: Final = "idempotency"
KEPT_DAYS: Final = 7
SWEEP_DAYS: Final = 30
"""A sweep looks for records of so many days before the kept ones."""
WAIT: Final = "wait"
"""The parameter that says how long to wait for the answer, and nothing of what is asked."""
TRIES_MAX: Final = 5
"""How often a request that met another's write begins again."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Makes repeating this request safe.",
        examples=["brief-123-v1"],
    ),
]


class Once:
    """The idempotency of one request; without a key it remembers nothing."""

    def __init__(self, route: str, key: str | None, request_hash: str) -> None:
        self._route = route
        self._key = key
        self._request_hash = request_hash

    @classmethod
    def none(cls) -> Once:
        """Of a request that needs none, such as a read."""
        return cls("", None, "")

    def _document_key(self, caller: Caller) -> str:
        assert self._key is not None
        hashed = hashlib.sha256(self._key.encode()).hexdigest()
        return f"{caller.principal.organization}/{self._route}/{hashed}"

    async def kept(self, caller: Caller) -> dict[str, Any] | None:
        """What was remembered of this very request.

        Raises:
            ProblemError: 422, the key was used for another one.
        """
        if self._key is None:
            return None
        document = await caller.client.get(COLLECTION, self._document_key(caller))
        if document is None:
            return None
        record: dict[str, Any] = json.loads(document.body)
        if record.pop("request") != self._request_hash:
            raise ProblemError(
                422, "idempotency_key_reused", "This Idempotency-Key was used for another request."
            )
        return record

    def writes(self, caller: Caller, record: Mapping[str, Any]) -> list[Write]:
        """What to commit together with the effect; the commit conflicts when it came second."""
        if self._key is None:
            return []
        body = json.dumps({"request": self._request_hash, **record}).encode()
        day = _day(caller.console.clock)
        return [expect_absent(COLLECTION, self._document_key(caller), body, {"day": str(day)})]

    async def send(
        self,
        caller: Caller,
        recipient: str,
        content: Any,
        message_type: str,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Have a message accepted once; the id of the one that was."""
        for _ in range(TRIES_MAX):
            kept = await self.kept(caller)
            if kept is not None:
                return str(kept["messageId"])
            message_id = caller.console.ids.ulid()
            try:
                await caller.client.send(
                    recipient,
                    content,
                    message_type,
                    message_id=message_id,
                    metadata=metadata,
                    writes=self.writes(caller, {"messageId": message_id}),
                )
            except ConflictError:
                continue
            return message_id
        raise busy()


def busy() -> ProblemError:
    """409 when others were quicker every time."""
    return ProblemError(409, "conflict", "It is being changed by others; try again.")


async def _once(request: Request, key: IdempotencyKey = None) -> Once:
    if len(request.headers.getlist("Idempotency-Key")) > 1:
        raise ProblemError(400, "malformed_request", "Idempotency-Key is sent more than once.")
    body = await request.body()
    meant = [request.method, request.url.path, json.loads(body) if body else None]
    query = sorted(one for one in request.query_params.multi_items() if one[0] != WAIT)
    if query:  # without one it stays as it is in the records that are kept
        meant.append(query)
    canonical = json.dumps(meant, sort_keys=True).encode()
    route = f"{request.method} {instance_of(request.scope)}"
    return Once(route, key, hashlib.sha256(canonical).hexdigest())


Idempotent = Annotated[Once, Depends(_once)]
"""A route's parameter that makes it honour Idempotency-Key."""


async def sweep(store: Store, clock: Clock) -> int:
    """Delete the records that are no longer kept, of every organization; how many."""
    swept = 0
    for age in range(KEPT_DAYS + 1, KEPT_DAYS + 1 + SWEEP_DAYS):
        day = _day(clock) - timedelta(days=age)
        old = await store.list_documents(COLLECTION, terms=[f"day={day}"], limit=BATCH_MAX)
        for document in old:
            put = Put(COLLECTION, document.key, document.organization, None)
            await store.commit([Commit(document.organization, puts=(put,))])
        swept += len(old)
    return swept


def _day(clock: Clock) -> Any:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC).date()
