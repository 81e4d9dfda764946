"""Sessions: each execution of an agent, read from what its job leaves behind anyway.

    the scheduler's commit that starts a run   -> `job.run` in the agent's inbox
    the host's commit that ends it             -> its acknowledgement, with `end_of_run`

So there is one record a run and no second truth: a run that has no end here has
none.  A run that goes on elsewhere after its host died is one session, whose
stretches that were cut are `interrupted`; so is each attempt, and each stretch
between two waits.  A look at a wait that goes on is none.  Sessions are kept as
long as messages are (`TROUPE_RETENTION_DAYS`).
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final, Literal, cast

from runtime.clock import iso
from runtime.errors import told
from runtime.ids import SCHEDULER
from runtime.job import AgentJob
from runtime.store.contract import StoredMessage
from runtime.turn import to_json
from runtime.wire import WireModel

RUN: Final = "job.run"
FRAMES_MAX: Final = 30
"""Frames of a stack trace; the innermost are kept."""
CUTS_KNOWN_MAX: Final = 15
"""Cuts of a run of which it is sure that they are all: a host keeps the latest 16."""

Status = Literal[
    "running", "completed", "failed", "cancelled", "waiting", "paused", "given_up", "skipped"
]


class Stretch(WireModel):
    """A part of a run that the end of its host has cut off."""

    attempt: int | None = None
    """The first stretch of the run is 1; None: there were more than are kept."""
    started_at: str
    ended_at: str
    """When another host took the run up; of the death itself nobody took the time."""


class Session(WireModel):
    """One execution of an agent."""

    id: str
    """Of its `job.run` message."""
    job_id: str
    status: Status
    """`running`, or how this run ended; the job may have gone on after it. `skipped`: there was
    nothing to do any more. `given_up`: its end could not be written."""
    started_at: str
    """When it got its slot."""
    ended_at: str | None = None
    duration_ms: int | None = None
    cost_usd: float = 0.0
    """Of this run alone; with the next one, only of runs that have ended."""
    tokens: int = 0
    error: str | None = None
    trace: tuple[str, ...] | None = None
    """`file:line in function`, the innermost last; of a failed run."""
    interrupted: tuple[Stretch, ...] | None = None
    """Told once the run has ended; of one that was cut more than `CUTS_KNOWN_MAX` times the
    latest, without their numbers."""


def end_of_run(
    outcome: str,
    record: AgentJob,
    error: BaseException | None = None,
    still: bool = False,
    cuts: Sequence[int] = (),
) -> bytes:
    """The reply with which a run's message is acknowledged.

    Args:
        record: as the run leaves it; its cost is the whole job's.
        still: the run only looked, and the job waits on.
        cuts: when another host took the run up after one had died, in ms.
    """
    said: dict[str, Any] = {"outcome": outcome}
    if still:
        said["still"] = True
    if record.cost_usd or record.tokens:
        said["spent"] = [record.cost_usd, record.tokens]
    if cuts:
        said["cuts"] = list(cuts)
    if error is not None:
        said |= {"error": told(error), "trace": frames(error)}
    elif outcome == "failed" and record.error:  # its hosts have died: nothing was raised
        said["error"] = record.error
    return to_json(said) if len(said) > 1 else _said_no_more(outcome)


@cache
def _said_no_more(outcome: str) -> bytes:
    return to_json({"outcome": outcome})  # what most runs say, encoded once


def frames(error: BaseException) -> list[str]:
    """Where an error came from: places in the code, never values."""
    found = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in found]


def session_of(stored: StoredMessage) -> Session | None:
    """The session that a message of an agent's inbox stands for; None: it is none."""
    if stored.sender != SCHEDULER:
        return None
    message = json.loads(stored.body)
    content = message.get("content")
    if message.get("messageType") != RUN or not isinstance(content, dict):
        return None
    reply = json.loads(stored.reply) if stored.reply is not None else {}
    if reply.get("still"):
        return None
    ended = stored.finished_ms
    began_usd, began_tokens = content.get("spent", (0.0, 0))
    usd, tokens = reply.get("spent", (began_usd, began_tokens))
    return Session(
        id=stored.message_id,
        job_id=content["jobId"],
        status=_status(stored, reply),
        started_at=iso(stored.accepted_ms),
        ended_at=iso(ended) if ended is not None else None,
        duration_ms=max(0, ended - stored.accepted_ms) if ended is not None else None,
        cost_usd=round(max(0.0, usd - began_usd), 9),
        tokens=max(0, tokens - began_tokens),
        error=reply.get("error") or stored.error,
        trace=reply.get("trace"),
        interrupted=_stretches(stored.accepted_ms, reply.get("cuts", ())),
    )


def _stretches(began_ms: int, cuts: Sequence[int]) -> tuple[Stretch, ...] | None:
    """From cut to cut; the first from the run's start, unless there may have been cuts before."""
    is_all = len(cuts) <= CUTS_KNOWN_MAX
    times = (began_ms, *cuts) if is_all else cuts
    return (
        tuple(
            Stretch(attempt=number if is_all else None, started_at=iso(start), ended_at=iso(cut))
            for number, (start, cut) in enumerate(pairwise(times), 1)
        )
        or None
    )


def _status(stored: StoredMessage, reply: dict[str, Any]) -> Status:
    match stored.status:
        case "pending":
            return "running"
        case "dead":
            return "given_up"
        case _:
            return cast(Status, reply.get("outcome", "skipped"))
