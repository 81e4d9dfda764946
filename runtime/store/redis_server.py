"""What a redis-server must be before anything is kept on it, and what it then promises.

Checked on every new connection, because the server behind an address changes:
it has an append-only file, never evicts, is no replica and no cluster.  Where
CONFIG is forbidden (managed servers) INFO tells most of it, and what could not
be verified is said in health.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from runtime.errors import StoreError, StoreUnavailableError

REWRITE_WAIT_S: Final = 0.7
"""How long a call waits for the append-only file; a large one takes longer."""
REWRITE_LOOK_S: Final = 0.02
REWRITE_AGAIN_S: Final = 5.0
"""A rewriting that fails leaves a file more behind: a process begins no other for so long."""
NO_RINGS: Final = b"\x90"
"""Rings, as they are published: msgpack of an empty array."""
VERSION_MIN: Final = (7, 0)
"""Flags of a script (`#!lua`) are what refuses it before it starts."""
_SETTINGS: Final = (
    "appendonly", "appendfsync", "maxmemory-policy", "no-appendfsync-on-rewrite",
)  # fmt: skip
_TOLD: Final[tuple[str, ...]] = (
    "redis_version", "run_id", "used_memory_human", "maxmemory_human", "aof_last_write_status",
)  # fmt: skip
_FAILED: Final = (
    "it was restarted and can't write its append-only file anew: its log says why"
    " (is there room for the file once more on its disk?)"
)

Ask = Callable[..., Awaitable[Any]]
"""Sends one command and answers what the server said."""


class ServerRefusedError(StoreError):
    """This redis-server can't keep what Troupe promises."""


@dataclass(frozen=True)
class Facts:
    """What a server says of itself."""

    info: dict[str, str]
    config: dict[str, str]
    """Empty when CONFIG is forbidden."""

    @property
    def appends(self) -> bool:
        return self.config.get("appendonly") == "yes" or self.info.get("aof_enabled") == "1"

    @property
    def policy(self) -> str:
        return self.config.get("maxmemory-policy") or self.info.get("maxmemory_policy", "unknown")

    def check(self) -> None:
        """Raise ServerRefusedError unless the store may be kept here."""
        for wrong, why in (
            (_version(self.info) < VERSION_MIN, "it is older than Redis 7.0; use a newer one"),
            (
                self.info.get("redis_mode", "standalone") != "standalone",
                "it is part of a cluster, and a commit to the scheduler spans two slots;"
                " use a server of its own (cluster-enabled no)",
            ),
            (
                self.info.get("role") != "master",
                "it is a replica: give the URL of its master, or promote it"
                " (redis-cli REPLICAOF NO ONE)",
            ),
            (
                not self.appends,
                "appendonly is no: accepted work would be lost with its process"
                " (redis-cli CONFIG SET appendonly yes)",
            ),
            (
                self.policy != "noeviction",
                f"maxmemory-policy is {self.policy}: accepted work would be evicted"
                " (redis-cli CONFIG SET maxmemory-policy noeviction)",
            ),
        ):
            if wrong:
                raise ServerRefusedError(why)

    @property
    def durability(self) -> str:
        """What survives, as health says it."""
        if not self.appends:
            return "none"
        fsync = self.config.get("appendfsync", "unknown")
        if fsync == "always" and self.config.get("no-appendfsync-on-rewrite") != "yes":
            return "power loss"
        return "process kill"

    @property
    def at_risk(self) -> str:
        """What `durability` leaves open, for people."""
        match self.config.get("appendfsync"):
            case None:
                return "appendfsync could not be read: assume about 2 s of accepted work"
            case "always" if self.durability == "power loss":
                return "nothing, if the disk honours fsync"
            case "no":
                return "about 30 s of accepted work at a power loss"
            case _:
                return "about 2 s of accepted work when redis-server is killed or power fails"

    def details(self) -> dict[str, str]:
        """For health."""
        told: dict[str, str] = {name: self.info[name] for name in _TOLD if name in self.info}
        told |= {"maxmemory_policy": self.policy, "at_risk": self.at_risk}
        unverified = [name for name in _SETTINGS if name not in self.config]
        if unverified:
            told["unverified"] = f"CONFIG is forbidden: {', '.join(unverified)}"
        return told


async def facts_of(ask: Ask) -> Facts:
    """Ask a server about itself.

    Raises:
        ServerRefusedError: it does not even tell INFO.
    """
    try:
        info = _parsed_info(await ask("INFO"))
    except ResponseError as error:
        raise ServerRefusedError(f"INFO is forbidden to this user (ACL: +info): {error}") from error
    try:
        found = [word.decode() for word in await ask("CONFIG", "GET", *_SETTINGS)]
    except ResponseError:
        return Facts(info, {})
    return Facts(info, dict(zip(found[::2], found[1::2], strict=True)))


async def check_rings(ask: Ask, prefix: str) -> None:
    """Ring nobody: of a user it is not known otherwise, and Redis 7 gives a new one no channel.

    Raises:
        ServerRefusedError: this user may not ring.
    """
    try:
        await ask("PUBLISH", f"{prefix}{{system}}:ring", NO_RINGS)
    except NoPermissionError as error:
        raise ServerRefusedError(
            f"PUBLISH is forbidden to this user (ACL: +publish +subscribe &{prefix}{{*): {error}"
        ) from error


class Rewrite:
    """Has a server that was restarted write its append-only file anew.

    A kill or a power loss can cut the file in the middle of a transaction.
    Loading leaves that out, but redis-server then cuts the file *inside* the
    transaction; what is appended after it belongs to it, and the next restart
    would bring back a part of what was never accepted (valkey-io/valkey#4342).
    So nothing of ours is appended before the file is whole again.
    """

    def __init__(self) -> None:
        self._next_s = 0.0
        """Before this a rewriting that has failed is not begun again, by the loop's clock."""

    async def done(self, ask: Ask) -> bool:
        """Begin it if need be, and wait for it.

        Returns:
            Whether the file is whole; False where BGREWRITEAOF is forbidden.

        Raises:
            StoreUnavailableError: it takes longer, or has failed; ask again.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + REWRITE_WAIT_S
        while True:
            info = _parsed_info(await ask("INFO", "persistence"))
            if info.get("aof_rewrite_in_progress") == info.get("aof_rewrite_scheduled") == "0":
                has_failed = info.get("aof_last_bgrewrite_status") != "ok"
                if info.get("aof_rewrites") != "0" and not has_failed:
                    return True
                if has_failed and clock() < self._next_s:
                    raise StoreUnavailableError(_FAILED)
                if not await _began(ask):
                    return False
                self._next_s = clock() + REWRITE_AGAIN_S
            if clock() > deadline:
                raise StoreUnavailableError("it writes its append-only file anew after a restart")
            await asyncio.sleep(REWRITE_LOOK_S)


async def _began(ask: Ask) -> bool:
    """Begin to rewrite the file; False where that is forbidden."""
    try:
        await ask("BGREWRITEAOF")
    except NoPermissionError:
        return False
    except ResponseError as error:
        if "unknown command" in str(error):
            return False
        if "already in progress" not in str(error):
            raise StoreUnavailableError(f"BGREWRITEAOF: {error}") from error
    return True


def _parsed_info(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def _version(info: dict[str, str]) -> tuple[int, int]:
    major, _, rest = info.get("redis_version", "0.0").partition(".")
    return int(major), int(rest.partition(".")[0] or 0)
