"""/api/registry: the five verbs of the service registry over HTTP."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from runtime.console.caller import Caller, Operator, Viewer
from runtime.console.once import busy
from runtime.console.paging import Page, PageQuery, list_page, page
from runtime.console.problems import ProblemError, invalid, not_found
from runtime.registry import (
    BadCriteriaError,
    Endpoints,
    Metadata,
    Registry,
    RegistryBusyError,
    RegistryFullError,
    Service,
    ServiceId,
    UnknownServiceError,
)
from runtime.wire import WireModel

router = APIRouter(prefix="/api/registry", tags=["registry"])
ServiceKey = Annotated[str, Path(max_length=200, examples=["billing"])]


class Registration(WireModel):
    service_id: ServiceId = Field(examples=["billing"])
    metadata: Metadata = Field(default_factory=dict, examples=[{"capabilities": ["invoices"]}])
    endpoints: Endpoints = Field(default_factory=dict, examples=[{"agent": "billing:main"}])
    ttl_s: float | None = Field(None, gt=0, le=86_400 * 30)
    """Seconds without an update after which the service is absent; none: never."""


class Change(WireModel):
    """What is given replaces what was; an empty change is a heartbeat."""

    metadata: Metadata | None = None
    endpoints: Endpoints | None = None


class Discovery(WireModel):
    criteria: dict[str, Any] = Field(examples=[{"capabilities": "invoices"}])


def _registry(caller: Caller) -> Registry:
    console = caller.console
    return Registry(console.store, console.clock, caller.principal.organization)


def _answer(service: Service, status: int = 200) -> Response:
    return Response(service.to_json(), status, media_type="application/json")


@router.get("/services", response_model=Page[Service], summary="List the services that are there")
async def list_services(caller: Viewer, query: Annotated[PageQuery, Query()]) -> Response:
    registry = _registry(caller)
    documents, cursor = await list_page(
        caller, "service", query, keep=registry.is_live, descending=False
    )
    return page((document.body for document in documents), cursor)


@router.post(
    "/services",
    status_code=201,
    response_model=Service,
    summary="Register a service, or register it anew",
)
async def register_service(body: Registration, caller: Operator) -> Response:
    try:
        service = await _registry(caller).register_service(
            body.service_id, body.metadata, body.endpoints, body.ttl_s
        )
    except RegistryFullError:
        raise ProblemError(409, "registry_full", "The registry holds no more services.") from None
    return _answer(service, 201)


@router.get("/services/{service_id}", response_model=Service, summary="One service")
async def get_service(service_id: ServiceKey, caller: Viewer) -> Response:
    service = await _registry(caller).find(service_id)
    if service is None:
        raise not_found()
    return _answer(service)


@router.patch("/services/{service_id}", response_model=Service, summary="Change or keep alive")
async def update_service(service_id: ServiceKey, body: Change, caller: Operator) -> Response:
    try:
        return _answer(
            await _registry(caller).update_service(service_id, body.metadata, body.endpoints)
        )
    except UnknownServiceError:
        raise not_found() from None
    except RegistryBusyError:
        raise busy() from None


@router.delete("/services/{service_id}", status_code=204, summary="Deregister a service")
async def deregister_service(service_id: ServiceKey, caller: Operator) -> Response:
    with suppress(UnknownServiceError):  # it is gone, as was asked
        await _registry(caller).deregister_service(service_id)
    return Response(status_code=204)


@router.post("/discover", response_model=Page[Service], summary="Find services by criteria")
async def discover(body: Discovery, caller: Viewer) -> Response:
    try:
        found = await _registry(caller).discover_service(body.criteria)
    except BadCriteriaError as error:
        raise invalid("body.criteria", "bad_criteria", str(error)) from None
    return page((service.to_json() for service in found), None)
