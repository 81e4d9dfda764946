"""Which model calls were made twice, and whether a kill explains each.

The scripted server is the witness of what was asked and when, the journal of
what was recorded and when.  A call may be made again only if the host that made
it was killed after it began, and never once its answer is in the journal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from tests.acceptance.deployment import Deployment

PAGE = 100


class Call(NamedTuple):
    digest: str
    """Of the request; each step's is another."""
    began_ms: int


class Kill(NamedTuple):
    kind: str
    at_ms: int


class Again(NamedTuple):
    """A call and the one before it with the same request."""

    first: Call
    second: Call


def paid_twice(calls: Iterable[Call]) -> list[Again]:
    """Each call that repeats an earlier one."""
    by_digest: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda one: one.began_ms):
        by_digest[call.digest].append(call)
    return [Again(*pair) for same in by_digest.values() for pair in pairwise(same)]


def unexplained(
    again: Iterable[Again], kills: Iterable[Kill], recorded: Mapping[str, int]
) -> list[str]:
    """What is wrong with each repeated call that no kill of a host excuses.

    Args:
        recorded: when the answer to a request came into the journal, milliseconds.
    """
    hosts = [kill.at_ms for kill in kills if kill.kind == "host"]
    wrong = []
    for first, second in again:
        if recorded.get(first.digest, second.began_ms) < second.began_ms:
            wrong.append(f"{first.digest}: asked again after its answer was recorded")
        elif not any(first.began_ms <= at <= second.began_ms for at in hosts):
            wrong.append(f"{first.digest}: asked again, and no host was killed in between")
    return wrong


def recorded_calls(troupe: Deployment, issue: str) -> dict[str, int]:
    """Digest of each answered request of an issue's jobs -> when the answer was recorded."""
    found: dict[str, int] = {}
    jobs = troupe.call("GET", f"/api/jobs?issue={issue}&limit={PAGE}")["items"]
    for job in jobs:
        cursor = ""
        while cursor is not None:
            page = troupe.call("GET", f"/api/jobs/{job['id']}/journal?limit={PAGE}{cursor}")
            for step in filter(_answered, page["items"]):
                at = datetime.fromisoformat(step["at"])
                found[step["request"]["digest"]] = round(at.timestamp() * 1000)
            cursor = f"&cursor={page['nextCursor']}" if page["nextCursor"] else None
    return found


def _answered(step: Mapping[str, Any]) -> bool:
    """Whether it is a model call with its answer."""
    return step["done"] and "digest" in (step.get("request") or {})
