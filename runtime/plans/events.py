"""What an event leads to for the schedules that wait for it: of each, one change.

An event is told in a message.  Its due time is the moment at which it is heard,
so two deciders would give it two; but each schedule knows the message that it has
seen last, and messages are heard in their order.  So when the changes of one
event are written in several commits and the scheduler dies between two of
them, the next one goes on where that was.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from runtime.errors import InvalidMessageError
from runtime.plans.book import HEADS
from runtime.plans.planner import Planner, cancels
from runtime.plans.table import Entry
from runtime.plans.writer import Change, Facts, settled
from runtime.repository import repository_name
from runtime.schedule.policy import Fates, settle
from runtime.schedule.record import Schedule, Spec
from runtime.store.contract import Put
from runtime.turn import to_json

EVENT_BYTES_MAX: Final = 32 << 10
"""Of what an event tells: each schedule's job has it, and what waits for its turn."""


def hear(
    planner: Planner, organization: str, message_id: str, event: dict[str, Any]
) -> tuple[list[Change], list[Put], dict[str, Any]]:
    """The changes of those schedules that have not seen it, what else is known, and the answer.

    Args:
        event: {event, repository?, branch?, defaultBranch?, commit?, data?, by}

    Raises:
        InvalidMessageError: it is larger than EVENT_BYTES_MAX.
    """
    if len(to_json(event)) > EVENT_BYTES_MAX:
        raise InvalidMessageError(f"an event has at most {EVENT_BYTES_MAX} bytes")
    repository, now_ms = _repository(event), planner.clock.now_ms()
    puts: list[Put] = []
    if repository and event.get("commit") and branch_counts(event):
        head = str(event["commit"])
        puts.append(Put(HEADS, f"{organization}/{repository}", organization, head.encode()))
        planner.book.heads[organization, repository] = head
    changes, told = [], []
    for entry in planner.book.table.of_event(organization, str(event["event"])):
        if not _is_for(entry.spec, event, now_ms):
            continue
        record = entry.record
        if record.seen_event != message_id:
            change = _change(planner, entry, message_id, event)
            assert change.record is not None
            record = change.record
            changes.append(change)
        told.append(_told(record))
    return changes, puts, {"ok": True, "schedules": told}


def branch_counts(event: dict[str, Any]) -> bool:
    """Whether an event tells of the branch that `onlyIfChanged` looks at: the default one."""
    default = event.get("defaultBranch")
    return default is None or default == event.get("branch")


def _repository(event: dict[str, Any]) -> str | None:
    location = event.get("repository")
    return repository_name(str(location)) if location else None


def _is_for(spec: Spec, event: dict[str, Any], now_ms: int) -> bool:
    return (
        (spec.repository is None or repository_name(spec.repository) == _repository(event))
        and spec.branch in (None, event.get("branch"))
        and (spec.start_ms is None or spec.start_ms <= now_ms)
        and (spec.end_ms is None or now_ms <= spec.end_ms)
    )


def _change(planner: Planner, entry: Entry, message_id: str, event: dict[str, Any]) -> Change:
    record, now_ms = entry.record, planner.clock.now_ms()
    due_ms = max(now_ms, record.accounted_ms + 1)
    fates = settle(entry.spec, record.waiting, [due_ms], planner.moment(entry))
    _tell(fates, due_ms, message_id, event)
    facts = Facts(now_ms, event_id=message_id, head=planner.book.head(entry))
    change = settled(entry, record, fates, facts, first_ms=due_ms, accounted_ms=due_ms)
    assert change.record is not None
    change.record = msgspec.structs.replace(change.record, seen_event=message_id)
    if fates.cancel:
        change.sends += cancels(entry, record.active, now_ms)
    return change.finish()


def _tell(fates: Fates, due_ms: int, message_id: str, event: dict[str, Any]) -> None:
    """Have the run of an event know what that told, now or when its turn has come."""
    told = {**event, "messageId": message_id}
    for runs in (fates.fires, fates.waiting):
        for place, one in enumerate(runs):
            if one.due_ms == due_ms:
                runs[place] = msgspec.structs.replace(one, event_id=message_id, event=told)


def _told(record: Schedule) -> dict[str, Any]:
    """What the event that was seen last has come to."""
    waits = any(one.due_ms == record.accounted_ms for one in record.waiting)
    outcome = "waiting" if waits else record.last_outcome
    return {"agentId": record.agent_id, "name": record.name, "outcome": outcome}
