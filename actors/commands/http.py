"""The HTTP client of the command: one Troupe, one key, errors as exit codes.

    api = Api(http)
    issue = await api.get(f"/api/issues/{id}")
    async for event in api.events(["issue:issue_01J"]): ...

Every request may be repeated: reads are, and whoever writes gives an
idempotency key.  So a server that restarts under a command is waited for, up to
`patience_s`, and an event stream that breaks goes on from its last cursor:
no event is lost and none is shown twice.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

import httpx2

from actors.commands.failures import RefusedError, UnreachableError
from actors.commands.output import Slowness
from runtime.backoff import Backoff
from runtime.watching import Event, WatchRefusedError, WatchUnreachableError, watch

PATIENCE_S: Final = 5.0
"""How long a command waits for a server that does not answer."""
FOLLOW_PATIENCE_S: Final = 60.0
"""The same for a command that follows work: a restart of all of Troupe fits in."""
REQUEST_TIMEOUT_S: Final = 30.0
LINES_WAIT_S: Final = 600.0
"""The same until an answer of many lines begins: all of it is gathered first."""
PAGE_SIZE: Final = 100
BACKOFF: Final = Backoff(base_s=0.2, cap_s=3.0)
NO_CONTENT: Final = 204
_AGAIN: Final = frozenset({429, 503, 504})
_HINTS: Final = {
    401: "Check TROUPE_TOKEN, or make a key: troupe keys create --help",
    403: "This key's role does not allow it; see: troupe keys list",
    404: "See what there is: troupe issues, troupe jobs, troupe agents, troupe letters, "
    "troupe schedule list",
    413: "The request is too large; shorten the description.",
    503: "Nothing is lost. How it is: troupe status; why: the logs that docs/operations.md names",
}
_HINTS_BY_CODE: Final = {
    "repository_not_allowed": (
        "Where Troupe was started, allow its folder or host and start it again: "
        "TROUPE_REPOSITORY_ROOTS=/a:/b or TROUPE_REPOSITORY_HOSTS=host,host troupe up"
    ),
    "store_full": (
        "Make room on the disk that holds Troupe's data, then run this again; "
        "what was accepted before is kept, and can be read."
    ),
    "agent_failed": "Its error is in: troupe agents messages AGENT",
    "too_many_issues": (
        "It was not accepted. Hand it in again when some are done: "
        "troupe issues list --status queued"
    ),
    "belongs_to_issue": "Say it to the issue (troupe issues tell ID TEXT), or leave --payload out.",
    "inbox_full": "Its messages wait for their turn; send this again later.",
    "artifact_changed": "Look at it again: troupe review show ID",
}


class Api:
    """Requests to one Troupe; owns nothing, `http` is closed by who made it."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        patience_s: float = PATIENCE_S,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """`tell` is given a sentence for who waits while the server does not answer."""
        self._http = http
        self.patience_s = patience_s
        self._tell = tell

    @property
    def url(self) -> str:
        return str(self._http.base_url).rstrip("/")

    async def get(self, path: str, **params: Any) -> Any:
        """A document. Raises RefusedError, UnreachableError, as all of these."""
        return _document(await self._request("GET", path, params=params))

    async def content(self, path: str) -> bytes:
        """Bytes, such as a patch."""
        return (await self._request("GET", path)).content

    async def post(self, path: str, body: Any = None, idempotency_key: str | None = None) -> Any:
        """Post a body; repeated with the same key while the server does not answer."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        response = await self._request("POST", path, json=body or {}, headers=headers)
        return _document(response) if response.content else {}

    async def delete(self, path: str, **params: Any) -> bool:
        """Have something deleted; whether it is gone, or that was only accepted so far."""
        return (await self._request("DELETE", path, params=params)).status_code == NO_CONTENT

    async def items(self, path: str, limit: int, **params: Any) -> list[Any]:
        """At most `limit` items, over as many pages as it takes."""
        found: list[Any] = []
        cursor: str | None = None
        while len(found) < limit:
            size = min(PAGE_SIZE, limit - len(found))
            page = await self.get(path, limit=size, cursor=cursor, **params)
            found.extend(page["items"])
            cursor = page.get("nextCursor")
            if not cursor:
                break
        return found[:limit]

    async def lines(self, path: str, **params: Any) -> AsyncGenerator[str]:
        """The lines of an answer that may be long, and long in coming; not repeated.

        Raises:
            UnreachableError: it broke off; the lines given so far are not all.
        """
        timeout = httpx2.Timeout(REQUEST_TIMEOUT_S, read=LINES_WAIT_S)
        wanted = {name: value for name, value in params.items() if value is not None}
        try:
            async with self._http.stream("GET", path, params=wanted, timeout=timeout) as response:
                await _check(response)
                async for line in response.aiter_lines():
                    yield line
        except httpx2.TransportError as error:
            raise unreachable(self.url, error) from error

    async def events(
        self, rooms: Sequence[str], cursor: str | None = None
    ) -> AsyncGenerator[Event]:
        """Events of the rooms after `cursor` (default: from now on), for ever.

        A broken connection is opened again behind the last event that was given;
        each time it stands, `OPENED` comes first.

        Raises:
            UnreachableError: not one connection within `patience_s`.
        """
        key = self._http.headers.get("Authorization", "").removeprefix("Bearer ")
        watched = watch(
            self.url,
            key or None,
            rooms,
            cursor,
            patience_s=self.patience_s,
            direct=not self._http.trust_env,
        )
        try:
            async with aclosing(watched) as events:
                async for event in events:
                    yield event
        except WatchUnreachableError as error:
            raise unreachable(self.url, error) from error
        except WatchRefusedError as error:
            raise RefusedError(str(error), _HINTS.get(error.status or 401)) from error

    async def _request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        params = {k: v for k, v in kwargs.pop("params", {}).items() if v is not None}
        loop = asyncio.get_running_loop()
        give_up_at, retry = loop.time() + self.patience_s, 0
        slowness = Slowness(self._tell, loop.time) if self._tell else None
        while True:
            retry += 1
            wait_s = BACKOFF.wait_s(retry, random.random)
            try:
                response = await self._http.request(method, path, params=params or None, **kwargs)
                wait_s = max(wait_s, _asked_to_wait_s(response))
                if not _passes(response) or loop.time() + wait_s > give_up_at:
                    await _check(response)
                    return response
            except httpx2.TransportError as error:
                if loop.time() + wait_s > give_up_at:
                    raise unreachable(self.url, error) from error
            if slowness:
                slowness.say(f"{self.url} does not answer; trying for {self.patience_s:g} s.")
            await asyncio.sleep(wait_s)


def connect(url: str, token: str | None, *, local: bool) -> httpx2.AsyncClient:
    """An HTTP client for one Troupe; a proxy is never asked for one on this machine."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.AsyncClient(
        base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=not local
    )


def unreachable(url: str, error: Exception) -> UnreachableError:
    """The error for a server that does not answer."""
    reason = str(error) or type(error).__name__
    return UnreachableError(
        f"Troupe does not answer at {url} ({reason}).",
        "Start it with: troupe up    or name another with --url or TROUPE_URL",
    )


async def _check(response: httpx2.Response) -> None:
    """Raise RefusedError unless the server did what was asked."""
    if response.is_success:
        return
    await response.aread()
    problem = _problem(response)
    title = str(problem.get("title") or response.reason_phrase or "refused")
    detail = str(problem.get("detail") or "")
    sentence = f"{title}: {detail}" if detail and detail != title else title
    fields = [f"{error.get('path')}: {error.get('message')}" for error in problem.get("errors", ())]
    raise RefusedError(
        "\n  ".join([f"{sentence} (HTTP {response.status_code})", *fields]),
        _HINTS_BY_CODE.get(str(problem.get("code"))) or _HINTS.get(response.status_code),
        problem,
    )


def _passes(response: httpx2.Response) -> bool:
    """Whether it may be different in a moment: busy, or no answer of Troupe's own."""
    own = response.headers.get("content-type", "").startswith("application/problem+json")
    return response.status_code in _AGAIN or (response.is_server_error and not own)


def _document(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except json.JSONDecodeError as error:
        sentence = f"{response.url} did not answer in JSON: is it a Troupe?"
        raise RefusedError(sentence, "Check --url or TROUPE_URL.") from error


def _asked_to_wait_s(response: httpx2.Response) -> float:
    """`Retry-After` in seconds; 0 without one."""
    header = response.headers.get("Retry-After", "")
    return float(header) if header.isdecimal() else 0.0


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except json.JSONDecodeError:
        return {"status": response.status_code}
    return body if isinstance(body, dict) else {"status": response.status_code}
