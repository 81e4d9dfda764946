"""Troupe from outside the hosts: send, ask and read, on behalf of one organization.

A client is no agent: it has no inbox, no epoch and no state.  What it sends is
accepted when the call returns; after StoreUnavailableError the same call with
the same ids may be repeated and changes nothing twice.  It sees its own
organization's records only; another's look absent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.clock import Clock, iso
from runtime.errors import DeadLetterError, TroupeError
from runtime.group import why_refused
from runtime.ids import Ids, address, content_key
from runtime.message import Message
from runtime.store.contract import (
    ABSENT,
    ANY,
    Commit,
    Document,
    FeedEvent,
    Put,
    Refused,
    Send,
    Store,
    StoredMessage,
)

ASK_WAIT_S = 30.0
"""Default bound of `ask`; the question stays accepted after it."""


class AskTimeoutError(TroupeError):
    """The agent has not answered yet; the question is accepted and will be handled."""


class ConflictError(TroupeError):
    """A document is not as expected; nothing was written."""


@dataclass(frozen=True)
class Write:
    """A document to put in the same commit as a message."""

    collection: str
    key: str
    body: bytes | None
    terms: Mapping[str, str]
    expect: int = ANY


class Client:
    """One organization's door to the store, used by HTTP, the command and Python."""

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, organization: str, name: str = "http"
    ) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        self.organization = organization
        self.name = name

    def message(
        self,
        recipient: str,
        content: Any,
        message_type: str = "standard",
        *,
        message_id: str | None = None,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Message:
        """A message from this client; nothing is sent yet."""
        return Message(
            message_id=message_id or self.ids.ulid(),
            sender=f"client:{self.name}",
            recipient=recipient,
            message_type=message_type,
            content=content,
            timestamp=iso(self.clock.now_ms()),
            reply_to=reply_to,
            metadata=metadata,
        )

    async def send(
        self,
        recipient: str,
        content: Any,
        message_type: str = "standard",
        *,
        message_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        writes: Sequence[Write] = (),
        events: Sequence[FeedEvent] = (),
    ) -> str:
        """Have a message accepted, with documents and events in the same commit.

        Returns:
            The message id; the same when it had been accepted before.

        Raises:
            ConflictError: a write's expectation failed; args[0] is `collection/key`.
            InboxFullError: too many messages wait for the recipient already.
        """
        message = self.message(
            recipient, content, message_type, message_id=message_id, metadata=metadata
        )
        send = Send(
            message.message_id,
            f"{self.organization}/{message.sender}",
            address(self.organization, recipient),
            message.to_json(),
        )
        await self.commit(sends=(send,), writes=writes, events=events)
        return message.message_id

    async def commit(
        self,
        *,
        sends: Sequence[Send] = (),
        writes: Sequence[Write] = (),
        events: Sequence[FeedEvent] = (),
    ) -> None:
        """Write documents, messages and events in one commit; see `send`."""
        puts = tuple(
            Put(
                write.collection,
                write.key,
                self.organization,
                write.body,
                tuple(f"{name}={value}" for name, value in write.terms.items()),
                write.expect,
            )
            for write in writes
        )
        [answer] = await self.store.commit(
            [Commit(self.organization, sends=tuple(sends), puts=puts, feed=tuple(events))]
        )
        if not isinstance(answer, Refused) or answer.reason == "duplicate":
            return
        if answer.reason == "revision_conflict":
            raise ConflictError(answer.detail)
        raise why_refused(answer)

    async def ask(
        self,
        recipient: str,
        content: Any,
        message_type: str = "standard",
        *,
        message_id: str | None = None,
        wait_s: float = ASK_WAIT_S,
    ) -> Any:
        """Send and wait for the answer.

        Raises:
            AskTimeoutError: no answer within `wait_s`; `args[0]` is the message id.
            DeadLetterError: the agent gave up.
        """
        sent = await self.send(recipient, content, message_type, message_id=message_id)
        return await self.answer(recipient, sent, wait_s)

    async def answer(self, recipient: str, message_id: str, wait_s: float = ASK_WAIT_S) -> Any:
        """The answer to an accepted message; errors as `ask`."""
        where = address(self.organization, recipient)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            left_s = max(0.0, deadline - loop.time())
            message = await self.store.outcome(where, message_id, min(left_s, 10.0))
            if message is not None and message.status != "pending":
                return _reply(message)
            if left_s <= 0:
                raise AskTimeoutError(message_id)

    async def get(self, collection: str, key: str) -> Document | None:
        """A document of this organization; another's is absent."""
        document = await self.store.get(collection, key)
        return document if document and document.organization == self.organization else None

    async def list(
        self,
        collection: str,
        terms: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[Document]:
        """Documents of this organization that carry all terms, newest key first."""
        wanted = [f"{name}={value}" for name, value in (terms or {}).items()]
        return await self.store.list_documents(
            collection, self.organization, wanted, after, limit, descending
        )

    async def count(self, collection: str, terms: Mapping[str, str] | None = None) -> int:
        wanted = [f"{name}={value}" for name, value in (terms or {}).items()]
        return await self.store.count(collection, self.organization, wanted)

    async def put_content(self, content: bytes) -> str:
        """Store bytes under their SHA-256 and return it; idempotent."""
        digest = hashlib.sha256(content).hexdigest()
        key = content_key(self.organization, digest)
        await self.commit(writes=[Write("content", key, content, {})])
        return digest

    async def get_content(self, digest: str) -> bytes | None:
        """The bytes stored under a SHA-256 by this organization."""
        document = await self.get("content", content_key(self.organization, digest))
        return document.body if document else None


def expect_absent(
    collection: str, key: str, body: bytes, terms: Mapping[str, str] | None = None
) -> Write:
    """A write that makes `key` unique: it fails with ConflictError when it exists."""
    return Write(collection, key, body, terms or {}, ABSENT)


def _reply(message: StoredMessage) -> Any:
    if message.status == "dead":
        raise DeadLetterError(message.error or "")
    return json.loads(message.reply) if message.reply is not None else None
