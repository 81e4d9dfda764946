"""The SDK as we use it: what is set explicitly, and the raw events of a stream.

Nothing is left to the environment that decides where a prompt goes: key and
base URL are passed, redirects are not followed, the SDK neither retries nor
traces nor logs requests.  It is loaded with the first call and not before: that takes
a second of a processor, and a host that was killed is to be back sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from actors.models.request import Json
from actors.models.settings import ModelSettings
from actors.models.stream import AnswerBuilder, EventReader, MalformedAnswerError

if TYPE_CHECKING:
    import anthropic
    import httpx2

SILENCE_TIMEOUT_S = 300.0
"""Without a byte; local servers are silent while they read a long prompt."""
CONNECT_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 1.0
"""For the few bytes after `message_stop`."""
_OLD_VERSION = "2023-06-01"


def make_sdk(settings: ModelSettings) -> anthropic.AsyncAnthropic:
    """A client of the Messages API for these settings; bound to the loop that first uses it."""
    import anthropic  # noqa: PLC0415 - see the module
    import httpx2  # noqa: PLC0415

    # At DEBUG the SDK logs whole requests, prompts included.
    for name in ("anthropic", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    timeout = httpx2.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    return anthropic.AsyncAnthropic(
        api_key=settings.api_key,
        base_url=settings.base_url,
        max_retries=0,
        timeout=timeout,
        default_headers=_headers(settings),
        open_telemetry=False,
        http_client=_http_client(settings.base_url, timeout),
    )


def _headers(settings: ModelSettings) -> dict[str, str]:
    """Servers that copy the API know its older authentication."""
    if settings.provider != "compatible":
        return {}
    return {"x-api-key": settings.api_key, "anthropic-version": _OLD_VERSION}


def _http_client(base_url: str, timeout: httpx2.Timeout) -> httpx2.AsyncClient:
    import anthropic  # noqa: PLC0415 - see the module

    options: dict[str, Any] = {"timeout": timeout, "follow_redirects": False}
    if _loopback(base_url):
        # A proxy of the environment can't reach our own machine.
        options["mounts"] = {"http://": None, "https://": None, "all://": None}
    return anthropic.DefaultAsyncHttpxClient(**options)


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def read_stream(
    sdk: anthropic.AsyncAnthropic, body: Json, builder: AnswerBuilder
) -> str | None:
    """Make one call and fold its events into `builder`; returns the request id.

    Raw events, because the SDK's models turn blocks they don't know into wrong ones.
    """
    async with sdk.messages.with_streaming_response.create(**body) as response:
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise MalformedAnswerError("not_an_event_stream")
        reader, chunks = EventReader(), response.iter_bytes()
        async for chunk in chunks:
            for name, data in reader.feed(chunk):
                builder.add(name, data)
                if builder.complete:
                    await _drain(chunks)
                    return response.request_id
        return response.request_id


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read the end of a body, so that the connection can be used again.

    The answer is whole and paid for: what goes wrong after it takes nothing away.
    """
    import httpx2  # noqa: PLC0415 - see the module

    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for _ in chunks:
                pass
