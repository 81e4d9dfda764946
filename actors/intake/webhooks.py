"""POST /api/webhooks/github: a push to GitHub tells the schedules that wait for it.

GitHub has no key of ours.  It signs the body it sends with a secret that the
organization's operator has given to both, and that is looked at before
anything else; the address names the organization.  A delivery has an id, by
which a repetition is answered as the first was.

A push to a branch is what `POST /api/schedules/events` calls `push`.  Other
deliveries (a ping, tags, a branch that is gone) are answered and change nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.intake.settings import IntakeSettings
from runtime.client import Client
from runtime.console.caller import Caller, console_of
from runtime.console.command import command, done
from runtime.console.once import Once
from runtime.console.problems import ProblemError, invalid
from runtime.console.schedules import EventBody, Told
from runtime.ids import HOME
from runtime.keys import Principal, Role

BRANCH: Final = "refs/heads/"
BY: Final = "github"
"""Who tells of the event, in the audit trail."""

_Signature = Annotated[str, Header(alias="X-Hub-Signature-256", max_length=100)]
_Event = Annotated[str, Header(alias="X-GitHub-Event", max_length=100)]
_Delivery = Annotated[
    str, Header(alias="X-GitHub-Delivery", max_length=100, pattern=r"^[0-9A-Za-z-]*$")
]


class Delivered(Told):
    ignored: str | None = Field(None, examples=["ping"])
    """What nothing is made of."""


class Webhooks:
    """The route and the secrets it goes by."""

    def __init__(self, settings: IntakeSettings) -> None:
        self._secrets = settings.github_secrets
        self.router = APIRouter(prefix="/api/webhooks", tags=["schedules"])
        self.router.add_api_route(
            "/github",
            self.github,
            methods=["POST"],
            response_model=Delivered,
            responses={202: {"model": Delivered, "description": "Accepted, not answered yet"}},
            openapi_extra={"security": []},
            summary="What GitHub delivers: a push tells the schedules that wait for it",
        )

    async def github(
        self,
        request: Request,
        organization: Annotated[str, Query(max_length=100)] = HOME,
        signature: _Signature = "",
        event: _Event = "",
        delivery: _Delivery = "",
    ) -> Response:
        body = await request.body()
        if not signed(body, signature, self._secrets.get(organization)):
            raise ProblemError(
                401, "unauthorized", "The signature of the body is not that of this secret."
            )
        if not delivery:
            raise invalid("header.X-GitHub-Delivery", "no_delivery", "GitHub numbers deliveries.")
        told = push(json.loads(body)) if event == "push" else None
        if told is None:
            return JSONResponse({"accepted": True, "ignored": event})
        console = console_of(request)
        principal = Principal(organization, Role.OPERATOR, BY, BY)
        client = Client(console.store, console.clock, console.ids, organization, BY)
        once = Once("POST /api/webhooks/github", delivery, hashlib.sha256(body).hexdigest())
        caller = Caller(principal, client, console)
        return done(await command(caller, once, "schedule.event", told.to_wire()))


def signed(body: bytes, signature: str, secret: str | None) -> bool:
    """Whether the body was signed with the secret; an unknown one takes as long and is never it."""
    key = (secret or secrets.token_hex()).encode()
    expected = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
    good = hmac.compare_digest(expected.encode(), signature.encode("latin-1", "replace"))
    return good and secret is not None


def push(payload: Any) -> EventBody | None:
    """The event a `push` delivery tells of; None: of nothing that anybody waits for.

    The repository is called by its clone URL, `https://github.com/OWNER/NAME.git`.

    Raises:
        ProblemError: 422, it is no such delivery.
    """
    try:
        ref, repository = str(payload["ref"]), payload["repository"]
        if not ref.startswith(BRANCH) or payload.get("deleted"):
            return None
        return EventBody(
            event="push",
            repository=repository["clone_url"],
            branch=ref.removeprefix(BRANCH),
            default_branch=repository.get("default_branch"),
            commit=payload["after"],
            data={
                "before": payload.get("before"),
                "pusher": (payload.get("pusher") or {}).get("name"),
                "compare": payload.get("compare"),
            },
        )
    except (AttributeError, KeyError, TypeError, ValidationError):
        raise invalid("body", "no_push", "This is not what GitHub sends of a push.") from None
