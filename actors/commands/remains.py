"""What an organization has on this machine's disk beside the store, and its removal.

    jobs/<job>             workspaces, if a killed host left one
    deliveries/<issue>     patches and review records
    mirrors/<repository>   of repositories that no other organization's jobs name

What somebody holds is left to the upkeep of caches, which comes by when it is
free.  Dependencies lie under the hash of their lock files, whoever uses them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from actors.delivery_text import safe_id
from actors.errors import AgentError, RepositoryBusyError
from actors.mirror import RepositorySource
from actors.room import quiet_job_removed, remove
from runtime.cluster.processes import held
from runtime.store.contract import Document, Store

PAGE: Final = 200


@dataclass
class Remains:
    """Ids, by which the things on the disk are found once the store knows nothing any more."""

    jobs: list[str] = field(default_factory=list)
    issues: list[str] = field(default_factory=list)
    mirrors: set[str] = field(default_factory=set)


async def find(store: Store, organization: str) -> Remains:
    """What there is of the organization; to be asked before it is purged."""
    found, others = Remains(), set[str]()
    async for job in _all(store, "job", None):
        named = _mirrors(json.loads(job.body).get("repository"))
        if job.organization == organization:
            found.jobs.append(job.key)
            found.mirrors |= named
        else:
            others |= named
    async for issue in _all(store, "issue", organization):
        found.issues.append(issue.key)
    found.mirrors -= others
    return found


async def clear(data: Path, remains: Remains) -> int:
    """Remove it; how many folders that was."""
    places = [data / "deliveries" / safe_id(issue) for issue in remains.issues]
    gone = 0
    for place in filter(Path.exists, places):
        await remove(place)
        gone += 1
    for place in filter(Path.exists, [data / "jobs" / job for job in remains.jobs]):
        with suppress(RepositoryBusyError):
            await quiet_job_removed(place, 0.0)
        gone += not place.exists()
    for name in sorted(remains.mirrors):
        gone += await _mirror_removed(data / "mirrors", name)
    return gone


async def _all(store: Store, collection: str, organization: str | None) -> AsyncIterator[Document]:
    after: str | None = None
    while page := await store.list_documents(
        collection, organization, (), after, PAGE, descending=False
    ):
        for document in page:
            yield document
        after = page[-1].key


def _mirrors(repository: str | None) -> set[str]:
    """The names a repository's mirror may have: of the place as named, and as found."""
    if not repository:
        return set()
    places = {repository}
    with suppress(AgentError):
        places.add(RepositorySource(repository).location)
    return {hashlib.sha256(place.encode()).hexdigest()[:32] for place in places}


async def _mirror_removed(mirrors: Path, name: str) -> bool:
    """Remove a mirror unless somebody uses it; by a rename first, as upkeep does."""
    place = mirrors / f"{name}.git"
    if not place.exists():
        return False
    locks = [mirrors / f"{name}.use", mirrors / f"{name}.lock"]
    gone = place.with_suffix(".gone")
    with ExitStack() as holding:
        if not all([holding.enter_context(held(lock)) for lock in locks]):
            return False
        await remove(gone)
        place.rename(gone)
        for lock in locks:
            lock.unlink(missing_ok=True)
    await remove(gone)
    return True
