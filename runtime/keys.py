"""API keys: who may speak for an organization over HTTP, and with which role.

    document  (`key`, lookup prefix), organization `system`, terms organization=

A key is `troupe_` and 32 random bytes in hexadecimal.  It is shown once, when
it is made; what is kept is its SHA-256 (256 random bits need no slow hash) and,
to find it by, its first 12 digits.  A revoked key is refused everywhere within
`CACHE_TTL_S`: answers are remembered no longer than that.

What a role may do is the business of `runtime.console`; that an agent's key,
whatever its role, never decides a review is the routes'.
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
from runtime.errors import TroupeError
from runtime.ids import SYSTEM, organization_id
from runtime.message import WireModel
from runtime.store.contract import ABSENT, ANY, Commit, Document, Put, Refused, Store

CACHE_TTL_S: Final = 2.0
"""A key's record is read again after this; the bound of revocation, with the streams' recheck."""
CACHE_MAX: Final = 1_024
"""Keys remembered; the one used longest ago is forgotten first."""
KEYS_MAX: Final = 1_000
"""Keys a list shows."""
AGENT_PREFIX: Final = "agent:"
"""A key of this name's beginning belongs to an agent."""

COLLECTION: Final = "key"
_TOKEN = re.compile(r"troupe_[0-9a-f]{64}")
_PREFIX_DIGITS: Final = 12
_CREATE_TRIES_MAX: Final = 3


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

    sha256: str

    def public(self) -> Key:
        return Key.model_validate(self.model_dump(exclude={"sha256"}))


class UnknownKeyError(TroupeError):
    """There is no key of this id."""


class Keys:
    """Makes, lists, revokes and checks keys."""

    def __init__(
        self, store: Store, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._cache: OrderedDict[str, tuple[StoredKey, int]] = OrderedDict()

    async def create(self, organization: str, role: Role, name: str) -> tuple[str, Key]:
        """Make a key.

        Returns:
            The key, which can never be shown again, and its record.
        """
        organization_id(organization)
        for _ in range(_CREATE_TRIES_MAX):
            token = f"troupe_{self._random_bytes(32).hex()}"
            stored = StoredKey(
                id=f"key_{_prefix(token)}",
                organization_id=organization,
                role=role,
                name=name,
                created_at=iso(self._clock.now_ms()),
                sha256=_digest(token),
            )
            if await self._put(stored, ABSENT):
                return token, stored.public()
        raise TroupeError("random numbers repeat: no free key prefix was found")

    async def list(self, organization: str | None = None) -> list[Key]:
        """Keys of an organization, or of all, revoked ones too."""
        terms = [f"organization={organization}"] if organization else []
        documents = await self._store.list_documents(COLLECTION, SYSTEM, terms, limit=KEYS_MAX)
        keys = [_read(document).public() for document in documents]
        return sorted(keys, key=lambda key: key.created_at)

    async def revoke(self, key_id: str, organization: str | None = None) -> Key:
        """Make a key worthless within `CACHE_TTL_S`, here at once. Idempotent.

        Args:
            organization: the key must be of it; None: of any.

        Raises:
            UnknownKeyError: there is none; then nothing has changed.
        """
        prefix = key_id.removeprefix("key_")
        document = await self._store.get(COLLECTION, prefix)
        stored = _read(document) if document is not None else None
        if stored is None or organization not in (None, stored.organization_id):
            raise UnknownKeyError(key_id)
        if stored.revoked_at is None:
            stored = stored.model_copy(update={"revoked_at": iso(self._clock.now_ms())})
            # nothing else ever changes a key, so whatever is there may be replaced
            await self._put(stored, ANY)
        self._cache.pop(prefix, None)
        return stored.public()

    async def authenticate(self, token: str) -> Principal | None:
        """Whose key this is; None for everything that is no valid key."""
        if not _TOKEN.fullmatch(token):
            return None
        stored = await self._find(_prefix(token))
        # compared even when there is none, so that time does not tell which prefixes exist
        known = stored.sha256 if stored is not None else "0" * 64
        if not hmac.compare_digest(known, _digest(token)) or stored is None:
            return None
        return stored.principal if stored.revoked_at is None else None

    async def is_active(self, principal: Principal) -> bool:
        """Whether the key a stream was opened with still holds."""
        stored = await self._find(principal.key_id.removeprefix("key_"))
        return stored is not None and stored.revoked_at is None

    async def _find(self, prefix: str) -> StoredKey | None:
        now_ms = self._clock.now_ms()
        stored, read_ms = self._cache.get(prefix, (None, 0))
        # a clock that was set back makes an entry old, not young for ever
        if stored is not None and 0 <= now_ms - read_ms < CACHE_TTL_S * 1000:
            self._cache.move_to_end(prefix)
            return stored
        document = await self._store.get(COLLECTION, prefix)
        if document is None:
            self._cache.pop(prefix, None)
            return None
        stored = _read(document)
        self._cache[prefix] = (stored, now_ms)
        self._cache.move_to_end(prefix)
        while len(self._cache) > CACHE_MAX:
            self._cache.popitem(last=False)
        return stored

    async def _put(self, stored: StoredKey, expect: int) -> bool:
        put = Put(
            COLLECTION,
            stored.id.removeprefix("key_"),
            SYSTEM,
            stored.to_json(),
            (f"organization={stored.organization_id}",),
            expect,
        )
        [answer] = await self._store.commit([Commit(SYSTEM, puts=(put,))])
        return not isinstance(answer, Refused)


def _prefix(token: str) -> str:
    return token.removeprefix("troupe_")[:_PREFIX_DIGITS]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read(document: Document) -> StoredKey:
    return StoredKey.model_validate_json(document.body)
