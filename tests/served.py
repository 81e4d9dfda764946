"""A local HTTP server for tests of the command: an app in a thread, on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from runtime.console.door import SERVED

START_S = 10.0
STOP_S = 20.0

Made = Callable[[], AbstractAsyncContextManager[Any]]


def _config(app: Any) -> uvicorn.Config:
    """As the public port serves it."""
    return uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=0, **SERVED)


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, app: Any, ready: threading.Event) -> None:
        super().__init__(_config(app))
        self._is_ready = ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.port = self.servers[0].sockets[0].getsockname()[1]
        self._is_ready.set()


class _Beside(uvicorn.Server):
    """A server in the loop of whoever starts it, which keeps its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an app in this loop, so that a test may use what is behind it; its address."""
    server = _Beside(_config(app))
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(START_S):
        while not server.started:
            await asyncio.sleep(0)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        async with asyncio.timeout(STOP_S):
            await task


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app and give its address; stopped afterwards."""

    @asynccontextmanager
    async def made() -> AsyncIterator[Any]:
        yield app

    with served_by(made) as url:
        yield url


@contextmanager
def served_by(made: Made) -> Iterator[str]:
    """Serve what `made` gives, which lives in the server's own loop."""
    ready = threading.Event()
    started: list[_Server] = []

    async def serve() -> None:
        async with made() as app:
            started.append(_Server(app, ready))
            await started[0].serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(START_S), "the server did not start"
    try:
        yield f"http://127.0.0.1:{started[0].port}"
    finally:
        started[0].should_exit = True
        thread.join(STOP_S)
        assert not thread.is_alive(), "the server did not stop"
