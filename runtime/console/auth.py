"""Who is asking: a Bearer key in the Authorization header, on HTTP and WebSocket alike.

Runs before routing, so that without a key nothing can be learned, not even
which routes exist.  Afterwards `scope["principal"]` is set, except on the few
open paths when no key was sent.  A key in a query or a cookie is never looked
at.  What a role may do is decided at the route (`runtime.console.caller`).
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.console.problems import HANG_UP, ProblemError
from runtime.keys import Keys, Principal

OPEN: Final = frozenset({"/docs", "/openapi.json", "/api/health", "/api/ready"})
"""Paths that answer without a key; a key that is sent must still be good."""
SIGNED: Final = "/api/webhooks/"
"""Paths that begin so take no key: their senders sign the body, and the route looks at that
before anything else."""


class AuthMiddleware:
    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scope["principal"] = await self._principal(sent)
        if scope["principal"] is not None or (not sent and asks_nobody(scope["path"])):
            await self._app(scope, receive, send)
        else:
            raise _unauthorized(scope)

    async def _principal(self, sent: list[bytes]) -> Principal | None:
        if len(sent) != 1:
            return None
        scheme, _, token = sent[0].decode("latin-1").partition(" ")
        return await self._keys.authenticate(token) if scheme.lower() == "bearer" else None


def asks_nobody(path: str) -> bool:
    """Whether a path is reached without a key."""
    return path in OPEN or path.startswith(SIGNED)


def _unauthorized(scope: Scope) -> ProblemError:
    names = {name for name, _ in scope["headers"]}
    unread = HANG_UP if names & {b"content-length", b"transfer-encoding"} else {}
    return ProblemError(
        401,
        "unauthorized",
        "Send a valid key as `Authorization: Bearer troupe_...`.",
        None,
        {"WWW-Authenticate": "Bearer", **unread},
    )
