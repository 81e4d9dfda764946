"""The service registry: who offers what in an organization, and where.

    document  (`service`, organization/service id)

A service with a time to live is absent as soon as it lapses, whether or not it
was swept yet; an update, even an empty one, begins it anew.  Records are
replaced whole under their revision, so two writers never mix.

Criteria are a small language of equality and containment over the metadata:

    {"kind": "billing"}               the field equals, or is a list that contains it
    {"capabilities": ["a", "b"]}      the field contains every one of them
    {"region": {"zone": "eu"}}        the field is an object that meets these criteria
    {"serviceId": "billing-1"}        the service of this id

All must hold; `{}` finds every service; true is not 1.

Source: the interface of the source documents' ServiceRegistry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from runtime.clock import Clock, iso
from runtime.errors import TroupeError
from runtime.ids import HOME, organization_id
from runtime.store.contract import ANY, BATCH_MAX, Commit, Document, Put, Refused, Store
from runtime.turn import to_json
from runtime.wire import WireModel

DEFAULT_ORGANIZATION: Final = HOME
COLLECTION: Final = "service"
SERVICES_MAX: Final = 1_000
"""Services of one organization."""
METADATA_BYTES_MAX: Final = 16 << 10
ENDPOINTS_MAX: Final = 32
CRITERIA_MAX: Final = 20
"""Criteria in one object, and values in one list."""
CRITERIA_DEPTH_MAX: Final = 4
TRIES_MAX: Final = 5
"""How often a change that met another's begins again."""
SWEEP_PAGES_MAX: Final = 100

_SERVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}")


def _service_id(text: str) -> str:
    if not _SERVICE_ID.fullmatch(text):
        raise ValueError("1..200 letters, digits, `.`, `_`, `:`, `@`, `-`, not a sign first")
    return text


def _bounded(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(to_json(metadata)) > METADATA_BYTES_MAX:
        raise ValueError(f"metadata is over {METADATA_BYTES_MAX} bytes of JSON")
    return metadata


ServiceId = Annotated[str, AfterValidator(_service_id)]
Metadata = Annotated[dict[str, Any], AfterValidator(_bounded)]
_Name = Annotated[str, Field(min_length=1, max_length=64)]
_Where = Annotated[str, Field(min_length=1, max_length=1_000)]
Endpoints = Annotated[dict[_Name, _Where], Field(max_length=ENDPOINTS_MAX)]
"""Name of an endpoint -> where it is: an agent id, a URL."""


class Service(WireModel):
    """A registered service."""

    service_id: ServiceId
    organization_id: str
    metadata: Metadata
    endpoints: Endpoints
    registered_at: str
    updated_at: str
    ttl_s: float | None = Field(None, gt=0)
    expires_at_ms: int | None = None

    def is_live(self, now_ms: int) -> bool:
        return self.expires_at_ms is None or now_ms < self.expires_at_ms


class UnknownServiceError(TroupeError):
    """No service of this id is registered."""


class RegistryFullError(TroupeError):
    """The organization has as many services as the registry holds for one."""


class BadCriteriaError(TroupeError):
    """Criteria are an object of at most 20 fields, nested at most 4 deep."""


class RegistryBusyError(TroupeError):
    """Others changed the service every time; nothing was written."""


class Registry:
    """One organization's services."""

    def __init__(
        self, store: Store, clock: Clock, organization: str = DEFAULT_ORGANIZATION
    ) -> None:
        self._store = store
        self._clock = clock
        self._organization = organization_id(organization)

    async def register_service(
        self,
        service_id: str,
        metadata: Mapping[str, Any],
        endpoints: Mapping[str, str],
        ttl_s: float | None = None,
    ) -> Service:
        """Make a service known, replacing one of the same id. Idempotent.

        Args:
            ttl_s: seconds without an update after which it is absent; None: never.

        Raises:
            RegistryFullError: the organization has SERVICES_MAX already.
        """
        now_ms = self._clock.now_ms()
        service = Service(
            service_id=service_id,
            organization_id=self._organization,
            metadata=dict(metadata),
            endpoints=dict(endpoints),
            registered_at=iso(now_ms),
            updated_at=iso(now_ms),
            ttl_s=ttl_s,
            expires_at_ms=_expiry(now_ms, ttl_s),
        )
        known = await self._store.get(COLLECTION, self._key(service_id))
        if known is None and await self._is_full():
            raise RegistryFullError(self._organization, SERVICES_MAX)
        await self._put(service, ANY)
        return service

    async def discover_service(self, criteria: Mapping[str, Any]) -> list[Service]:
        """The services that meet all criteria, by id.

        Raises:
            BadCriteriaError: too many or too deep.
        """
        _check(criteria, 1)
        return [one for one in await self._all() if matches(one, criteria)]

    async def update_service(
        self,
        service_id: str,
        metadata: Mapping[str, Any] | None = None,
        endpoints: Mapping[str, str] | None = None,
    ) -> Service:
        """Replace what is given and begin the time to live anew.

        Raises:
            UnknownServiceError: it was never registered, or it has lapsed.
        """
        for _ in range(TRIES_MAX):
            document = await self._store.get(COLLECTION, self._key(service_id))
            if document is None or not self.is_live(document):
                raise UnknownServiceError(service_id)
            old, now_ms = _read(document), self._clock.now_ms()
            new = Service(
                service_id=service_id,
                organization_id=self._organization,
                metadata=old.metadata if metadata is None else dict(metadata),
                endpoints=old.endpoints if endpoints is None else dict(endpoints),
                registered_at=old.registered_at,
                updated_at=iso(now_ms),
                ttl_s=old.ttl_s,
                expires_at_ms=_expiry(now_ms, old.ttl_s),
            )
            if await self._put(new, document.revision):
                return new
        raise RegistryBusyError(service_id)

    async def deregister_service(self, service_id: str) -> None:
        """Forget a service.

        Raises:
            UnknownServiceError: it was never registered, or it has lapsed.
        """
        document = await self._store.get(COLLECTION, self._key(service_id))
        if document is None or not self.is_live(document):
            raise UnknownServiceError(service_id)
        await self._write(document.key, None, ANY)

    async def list_services(
        self, filter_criteria: Mapping[str, Any] | None = None
    ) -> list[Service]:
        """Every service, or those that meet the criteria, by id."""
        return await self.discover_service(filter_criteria or {})

    async def find(self, service_id: str) -> Service | None:
        """The service of this id, if it is there."""
        document = await self._store.get(COLLECTION, self._key(service_id))
        return _read(document) if document and self.is_live(document) else None

    async def sweep(self) -> int:
        """Delete the lapsed services of every organization; how many there were."""
        swept, after = 0, None
        for _ in range(SWEEP_PAGES_MAX):
            documents = await self._store.list_documents(
                COLLECTION, after=after, limit=BATCH_MAX, descending=False
            )
            for document in documents:
                after = document.key
                if not self.is_live(document):
                    swept += await self._write(document.key, None, document.revision)
            if not documents:
                break
        return swept

    def is_live(self, document: Document) -> bool:
        """Whether the document's service is there as of now."""
        return _read(document).is_live(self._clock.now_ms())

    async def _all(self) -> list[Service]:
        found: list[Service] = []
        after: str | None = None
        while page := await self._store.list_documents(
            COLLECTION, self._organization, (), after, SERVICES_MAX, descending=False
        ):
            found += [_read(document) for document in page if self.is_live(document)]
            after = page[-1].key
        return found

    async def _is_full(self) -> bool:
        return await self._store.count(COLLECTION, self._organization) >= SERVICES_MAX

    async def _put(self, service: Service, expect: int) -> bool:
        return await self._write(self._key(service.service_id), service.to_json(), expect)

    async def _write(self, key: str, body: bytes | None, expect: int) -> bool:
        """Put or delete a service; False when it is not as expected."""
        organization = key.partition("/")[0]
        put = Put(COLLECTION, key, organization, body, (), expect)
        [answer] = await self._store.commit([Commit(organization, puts=(put,))])
        return not isinstance(answer, Refused)

    def _key(self, service_id: str) -> str:
        return f"{self._organization}/{service_id}"


def matches(service: Service, criteria: Mapping[str, Any]) -> bool:
    """Whether a service meets all criteria."""
    record = {**service.metadata, "serviceId": service.service_id}
    return _meets(record, criteria)


def _meets(have: object, want: object) -> bool:
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and all(
            name in have and _meets(have[name], value) for name, value in want.items()
        )
    if isinstance(want, list | tuple):
        return all(_meets(have, one) for one in want)
    if isinstance(have, list | tuple):
        return any(_meets(one, want) for one in have)
    return isinstance(have, bool) == isinstance(want, bool) and have == want


def _check(criteria: object, depth: int) -> None:
    inner = list(criteria.values()) if isinstance(criteria, Mapping) else criteria
    if not isinstance(inner, list | tuple):
        return
    if len(inner) > CRITERIA_MAX or depth > CRITERIA_DEPTH_MAX:
        raise BadCriteriaError()
    for one in inner:
        _check(one, depth + 1)


def _expiry(now_ms: int, ttl_s: float | None) -> int | None:
    return None if ttl_s is None else now_ms + round(ttl_s * 1000)


def _read(document: Document) -> Service:
    return Service.model_validate_json(document.body)
