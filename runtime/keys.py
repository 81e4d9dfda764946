"""API keys: who may speak for an organization over HTTP, and with which role.

    document  (`key`, key id), organization `system`, terms organization= prefix=

A key is `troupe_` and 32 random bytes in hexadecimal.  It is shown once, when
it is made; what is kept is its SHA-256 (256 random bits need no slow hash) and,
to find it by, its first 16 digits.  A revoked key is refused everywhere within
`CACHE_TTL_S`: answers are remembered no longer than that.

What a role may do is the business of `runtime.console`; that an agent's key,
whatever its role, never decides a review is the routes'.  What is everybody's
(the scheduler) is controlled by admins of the organization `HOME` only: the one
that `troupe up` makes its own key for.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import Field

from runtime.clock import Clock, iso
from runtime.errors import CommitRefusedError, InvalidIdError, TroupeError
from runtime.ids import HOME, SYSTEM, Ids, organization_id
from runtime.store.contract import ANY, Commit, Document, Put, Refused, Store
from runtime.wire import WireModel

CACHE_TTL_S: Final = 2.0
"""A key's record is read again after this; the bound of revocation, with the streams' recheck."""
CACHE_MAX: Final = 1_024
"""Entries remembered; the one used longest ago is forgotten first."""
KEYS_MAX: Final = 1_000
"""Keys a list shows."""
AGENT_PREFIX: Final = "agent:"
"""A key of this name's beginning belongs to an agent."""

COLLECTION: Final = "key"
_TOKEN = re.compile(r"troupe_[0-9a-f]{64}")
_PREFIX_DIGITS: Final = 16


class Role(StrEnum):
    """What a key may do; each role may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Principal:
    """Who is asking."""

    organization: str
    role: Role
    name: str
    key_id: str

    @property
    def is_agent(self) -> bool:
        """An agent may work with its role, but never decides a review."""
        return self.name.startswith(AGENT_PREFIX)

    @property
    def is_home(self) -> bool:
        """Of the organization that runs this installation."""
        return self.organization == HOME


class Key(WireModel):
    """A key as it is listed; the key itself is not in it."""

    id: str
    organization_id: str
    role: Role
    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    created_at: str
    revoked_at: str | None = None

    @property
    def principal(self) -> Principal:
        return Principal(self.organization_id, self.role, self.name, self.id)


class StoredKey(Key):
    """The key's document."""

    prefix: str
    sha256: str

    def public(self) -> Key:
        return Key.model_validate(self.model_dump(exclude={"prefix", "sha256"}))


class UnknownKeyError(TroupeError):
    """There is no key of this id."""


class Keys:
    """Makes, lists, revokes and checks keys."""

    def __init__(
        self, store: Store, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = Ids(clock, random_bytes)
        self._random_bytes = random_bytes
        self._cache: OrderedDict[str, tuple[StoredKey, int]] = OrderedDict()
        """By id and by lookup prefix, with the time it was read."""

    async def create(self, organization: str, role: Role, name: str) -> tuple[str, Key]:
        """Make a key.

        Returns:
            The key, which can never be shown again, and its record.

        Raises:
            InvalidIdError: no organization can have this name, or it is `system`.
        """
        if organization_id(organization) == SYSTEM:
            raise InvalidIdError(f"{SYSTEM} is Troupe itself")
        token = f"troupe_{self._random_bytes(32).hex()}"
        stored = StoredKey(
            id=self._ids.new("key"),
            organization_id=organization,
            role=role,
            name=name,
            created_at=iso(self._clock.now_ms()),
            prefix=_prefix(token),
            sha256=_digest(token),
        )
        await self._put(stored)
        return token, stored.public()

    async def list(self, organization: str | None = None) -> list[Key]:
        """Keys of an organization, or of all, oldest first, revoked ones too."""
        terms = [f"organization={organization}"] if organization else []
        documents = await self._store.list_documents(
            COLLECTION, SYSTEM, terms, limit=KEYS_MAX, descending=False
        )
        return [_read(document).public() for document in documents]

    async def revoke(self, key_id: str, organization: str | None = None) -> Key:
        """Make a key worthless: here at once, elsewhere within `CACHE_TTL_S`. Idempotent.

        Args:
            organization: the key must be of it; None: of any.

        Raises:
            UnknownKeyError: there is none; then nothing has changed.
        """
        document = await self._store.get(COLLECTION, key_id)
        stored = _read(document) if document is not None else None
        if stored is None or organization not in (None, stored.organization_id):
            raise UnknownKeyError(key_id)
        if stored.revoked_at is None:
            stored = stored.model_copy(update={"revoked_at": iso(self._clock.now_ms())})
            await self._put(stored)
        for where in (stored.id, stored.prefix):
            self._cache.pop(where, None)
        return stored.public()

    async def authenticate(self, token: str) -> Principal | None:
        """Whose key this is; None for everything that is no valid key."""
        if not _TOKEN.fullmatch(token):
            return None
        stored = self._remembered(_prefix(token)) or await self._by_prefix(_prefix(token))
        # compared even when there is none, so that time does not tell which prefixes exist
        known = stored.sha256 if stored is not None else "0" * 64
        if not hmac.compare_digest(known, _digest(token)) or stored is None:
            return None
        return stored.principal if stored.revoked_at is None else None

    async def is_active(self, principal: Principal) -> bool:
        """Whether the key that a stream was opened with still holds."""
        stored = self._remembered(principal.key_id)
        if stored is None:
            document = await self._store.get(COLLECTION, principal.key_id)
            if document is None:
                return False
            stored = _read(document)
            self._remember(stored.id, stored)
        return stored.revoked_at is None

    async def _by_prefix(self, prefix: str) -> StoredKey | None:
        documents = await self._store.list_documents(
            COLLECTION, SYSTEM, [f"prefix={prefix}"], limit=1
        )
        if not documents:
            return None
        stored = _read(documents[0])
        self._remember(prefix, stored)
        return stored

    def _remembered(self, where: str) -> StoredKey | None:
        stored, read_ms = self._cache.get(where, (None, 0))
        # a clock that was set back makes an entry old, not young for ever
        fresh = 0 <= self._clock.now_ms() - read_ms < CACHE_TTL_S * 1000
        if stored is None or not fresh:
            self._cache.pop(where, None)
            return None
        self._cache.move_to_end(where)
        return stored

    def _remember(self, where: str, stored: StoredKey) -> None:
        self._cache[where] = (stored, self._clock.now_ms())
        self._cache.move_to_end(where)
        while len(self._cache) > CACHE_MAX:
            self._cache.popitem(last=False)

    async def _put(self, stored: StoredKey) -> None:
        terms = (f"organization={stored.organization_id}", f"prefix={stored.prefix}")
        # nothing but its revocation ever changes a key, so what is there may be replaced
        put = Put(COLLECTION, stored.id, SYSTEM, stored.to_json(), terms, ANY)
        [answer] = await self._store.commit([Commit(SYSTEM, puts=(put,))])
        if isinstance(answer, Refused):
            raise CommitRefusedError(answer.reason, answer.detail)


def _prefix(token: str) -> str:
    return token.removeprefix("troupe_")[:_PREFIX_DIGITS]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read(document: Document) -> StoredKey:
    return StoredKey.model_validate_json(document.body)
