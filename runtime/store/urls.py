"""Which store a URL means, opened.

redis://HOST:PORT/DB   rediss://   unix://PATH    redis-server, for clusters
sqlite:///PATH                                    one file, one process
memory:                                           nothing survives
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from runtime.clock import Clock
from runtime.errors import SettingsError
from runtime.store.contract import Store
from runtime.store.memory import MemoryStore
from runtime.store.redis import RedisStore
from runtime.store.sqlite import SqliteStore

REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
SCHEMES: Final = (*REDIS_SCHEMES, "sqlite", "memory")


async def open_store(url: str, clock: Clock) -> Store:
    """The store at `url`; it is connected, or its file is open.

    Args:
        clock: for the embedded stores; Redis has a clock of its own.

    Raises:
        SettingsError: no store is meant.
        StoreError: it can't be opened.
    """
    try:
        scheme, path = urlsplit(url).scheme, unquote(urlsplit(url).path)
    except ValueError as error:
        raise SettingsError("a store's URL can't be read") from error
    if scheme in REDIS_SCHEMES:
        return await RedisStore.open(url)
    if scheme == "sqlite" and len(path) > 1:
        return await SqliteStore.open(Path(path), clock)
    if scheme == "memory":
        return MemoryStore(clock)
    near = get_close_matches(scheme, SCHEMES, 1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(SCHEMES)}"
    raise SettingsError(f"a store's URL begins with {scheme or 'nothing'}", hint)
