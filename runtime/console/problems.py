"""Problems: every error is answered as `application/problem+json` (RFC 9457).

    {type, title, status, detail, code, instance, errors?}

`code` is for programs and never changes its meaning; the table is in
docs/api.md.  `instance` is the route without its ids, so that an id of another
organization and one that does not exist are answered byte for byte alike; only
a failure of Troupe itself (500) carries an id of its own, which the log has
too.  Nothing here ever repeats what was sent.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.errors import (
    DeadLetterError,
    InboxFullError,
    InvalidIdError,
    InvalidMessageError,
    StoreFullError,
    StoreUnavailableError,
    TroupeError,
)
from runtime.ids import Ids

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
ERRORS_MAX: Final = 50
"""Fields named in one answer; there may be more that are wrong."""
OWN: Final = "Value error, "
"""What pydantic puts before the sentences of our own validators."""
HANG_UP: Final = {"Connection": "close"}
"""Has the server close the connection instead of reading a body that nobody wants."""
RETRY_AFTER_S: Final = 1
"""What a client is asked to wait when the store did not answer."""
ROOM_AFTER_S: Final = 60
"""The same when the store is full: somebody has to make room."""

_CODES: Final = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is no such thing here."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", "This route has no such method."),
}


class ProblemError(TroupeError):
    """A request can't be answered as it was asked.

    Args: status, code, detail, and as needed errors ({path, message, code}
    each), headers, and members of the document that only this answer has.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Mapping[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, code, detail, errors, headers, members)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.members = members

    def also(self, **members: Any) -> ProblemError:
        """The same with more members."""
        return ProblemError(self.status, self.code, self.detail, self.errors, self.headers, members)


def not_found() -> ProblemError:
    """The one answer for what does not exist and for what is another organization's."""
    code, detail = _CODES[HTTPStatus.NOT_FOUND]
    return ProblemError(404, code, detail)


def invalid(path: str, code: str, detail: str) -> ProblemError:
    """422 about one field, for example `body.context.repository`."""
    return ProblemError(422, code, detail, [{"path": path, "message": detail, "code": code}])


def unavailable(code: str, detail: str) -> ProblemError:
    """503: nothing is wrong with the request; it may be repeated."""
    return ProblemError(503, code, detail, None, {"Retry-After": str(RETRY_AFTER_S)})


def _full(error: StoreFullError) -> ProblemError:
    detail = "There is no room to keep this; nothing of it was accepted. Reading goes on."
    return ProblemError(507, "store_full", detail, None, {"Retry-After": str(ROOM_AFTER_S)})


def _inbox_full(error: InboxFullError) -> ProblemError:
    detail = "Too many messages wait for this agent; nothing was accepted. Try later."
    return ProblemError(429, "inbox_full", detail, None, {"Retry-After": str(ROOM_AFTER_S)})


def problem_of(error: Exception) -> ProblemError | None:
    """How an exception is answered; None: it is a fault of ours."""
    for kind, answer in _ANSWERS:
        if isinstance(error, kind):
            return answer(error)
    return None


def _http(error: HTTPException) -> ProblemError:
    status = HTTPStatus(error.status_code)
    code, detail = _CODES.get(status, (_snake(status.phrase), status.description or status.phrase))
    return ProblemError(status, code, detail, None, error.headers)


def _snake(phrase: str) -> str:
    return re.sub(r"[^a-z]+", "_", phrase.lower())


def _validation(error: RequestValidationError) -> ProblemError:
    return not_as_it_must_be(error.errors())


def not_as_it_must_be(found: Sequence[Any], *where: str) -> ProblemError:
    """422 for what pydantic has found, below a place such as `body`."""
    errors = [
        {
            "path": ".".join([*where, *(str(part) for part in one["loc"])]),
            "message": str(one["msg"]).removeprefix(OWN),
            "code": str(one["type"]),
        }
        for one in found[:ERRORS_MAX]
    ]
    paths = ", ".join(one["path"] for one in errors[:3])
    return ProblemError(422, "invalid_request", f"Not as it must be: {paths}.", errors)


_ANSWERS: Final[tuple[tuple[type[Exception], Callable[[Any], ProblemError]], ...]] = (
    (ProblemError, lambda error: error),
    (RequestValidationError, _validation),
    (HTTPException, _http),
    (InboxFullError, _inbox_full),
    (StoreFullError, _full),  # before the error that it is a kind of
    (
        StoreUnavailableError,
        lambda _: unavailable("store_unavailable", "The store did not answer; try again."),
    ),
    (
        DeadLetterError,
        lambda _: ProblemError(502, "agent_failed", "The agent gave the message up."),
    ),
    (InvalidIdError, lambda _: not_found()),
    (
        InvalidMessageError,
        lambda _: ProblemError(422, "invalid_request", "This can't be sent as a message."),
    ),
)


def instance_of(scope: Scope) -> str:
    """The route, with `:name` in the place of each id; before routing, the path."""
    route = scope.get("route")
    template = getattr(route, "path", None)
    if template is None:
        return str(scope.get("path", "/"))
    return re.sub(r"\{(\w+)[^}]*\}", r":\1", template)


def response(problem: ProblemError, scope: Scope, instance: str | None = None) -> Response:
    """The answer itself."""
    body: dict[str, Any] = {
        "type": f"urn:troupe:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "instance": instance or instance_of(scope),
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    body |= problem.members or {}
    content = json.dumps(body, ensure_ascii=True).encode()
    return Response(content, problem.status, dict(problem.headers or {}), MEDIA_TYPE)


async def handle(request: Request, error: Exception) -> Response:
    """FastAPI's handler for the errors that it makes itself."""
    problem = problem_of(error)
    assert problem is not None, "registered for errors that are problems"
    answer = response(problem, request.scope)
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        # the router names the methods of one of the routes at this path only
        answer.headers["Allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """The methods that the routes at the request's path have."""
    path, found = request.scope["path"], set[str]()
    for route in iter_route_contexts(request.app.routes):
        if route.path and compile_path(route.path)[0].match(path):
            found |= route.methods or set()
    return sorted(found)


STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.close"})
"""Messages after which it is too late for another answer."""
FAULT: Final = HTTPStatus.INTERNAL_SERVER_ERROR
UPGRADE_ANSWER: Final = "websocket.http.response"
"""ASGI's extension by which a refused upgrade is answered like any request."""
REFUSED_CODE: Final = 1008
FAILED_CODE: Final = 1011
"""WebSocket close codes; before the handshake either shows as HTTP 403."""


class ProblemsMiddleware:
    """Answers every exception that comes from inside; nothing passes it unanswered."""

    def __init__(self, app: ASGIApp, ids: Ids) -> None:
        self._app = app
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in STARTS
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:  # the boundary of a request: the caller is owed an answer
            if started:
                raise
            answer = self._answer(error, scope)
            if scope["type"] == "http" or UPGRADE_ANSWER in scope.get("extensions", {}):
                await answer(scope, receive, send)
            else:
                code = REFUSED_CODE if answer.status_code < FAULT else FAILED_CODE
                await send({"type": "websocket.close", "code": code})

    def _answer(self, error: Exception, scope: Scope) -> Response:
        problem = problem_of(error)
        if problem is not None:
            return response(problem, scope)
        incident = f"urn:troupe:incident:{self._ids.ulid()}"
        logger.error(
            "a request failed",
            exc_info=error,
            extra={"action": "http.failed", "incident": incident, "route": instance_of(scope)},
        )
        fault = ProblemError(500, "internal_error", "Troupe failed; its log says how.")
        return response(fault, scope, incident)
