"""Schedules from Python, under the names of the source documents.

    schedules = Schedules(client)
    made = await schedules.create("backend:acme.api", {"cron": "0 9 * * *"})
    await schedules.update_schedule("backend:acme.api", {"priority": "HIGH"})

What is asked for is `ScheduleBody` (docs/schedules.md), in camelCase or
snake_case; what is answered is `ScheduleView`.  A schedule is named by its
agent and its name; without one `default` is meant.  Everything is of the
client's organization.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from runtime.client import Client
from runtime.errors import ScheduleRefusedError
from runtime.ids import SCHEDULER_AGENT, address, agent_id
from runtime.schedule.record import (
    DEFAULT_NAME,
    SCHEDULES,
    Schedule,
    decode_schedule,
    decode_spec,
    schedule_key,
)
from runtime.schedule.spec import NAME, TRIGGERS, FieldError, ScheduleBody, in_order, spec_of
from runtime.schedule.view import ScheduleView, body_of, schedule_view
from runtime.sessions import Session, session_of
from runtime.store.contract import BATCH_MAX

HISTORY_MAX = 1_000


class Schedules:
    """The schedules of one organization's agents."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, agent: str, schedule: Mapping[str, Any] | ScheduleBody) -> ScheduleView:
        """Schedule an agent, or replace its schedule of this name.

        Raises:
            pydantic.ValidationError: a field is not as it must be.
            InvalidScheduleError: the time, the expression or the zone can't be meant, or
                means two things; with code and position.
            ScheduleRefusedError: the scheduler refused.
        """
        body = ScheduleBody.model_validate(schedule)
        return await self._set(agent, body, None)

    async def update(
        self, agent: str, changes: Mapping[str, Any], name: str = DEFAULT_NAME
    ) -> ScheduleView:
        """Change parts of a schedule; a new time replaces the old one. Errors as `create`.

        Raises:
            ScheduleRefusedError: also `changed`, when somebody else was quicker, and
                `not_changeable`: a schedule keeps its name.
        """
        record = await self._record(agent, name)
        if record is None:
            raise ScheduleRefusedError("not_found", f"{agent} has no schedule {name}")
        before = body_of(decode_spec(record.spec), name).model_dump(exclude_none=True)
        given = {_snake(key): value for key, value in changes.items()}
        if given.get("name", name) != name:
            raise ScheduleRefusedError("not_changeable", "a schedule keeps its name; make another")
        if given.keys() & set(TRIGGERS):
            before = {key: value for key, value in before.items() if key not in TRIGGERS}
        if isinstance(caught := given.get("catch_up"), Mapping):  # of it too, parts
            told = {_snake(key): value for key, value in caught.items()}
            given["catch_up"] = {**before["catch_up"], **told}
        body = ScheduleBody.model_validate({**before, **given, "name": name})
        return await self._set(agent, body, record.revision)

    update_schedule = update

    async def delete(self, agent: str, name: str = DEFAULT_NAME, reason: str | None = None) -> None:
        """Take an agent off the schedule; one that has none is left alone.

        Args:
            reason: why, for the audit trail.
        """
        if re.fullmatch(NAME, name) is None:
            return  # an empty one would be taken for `default`
        content = {"agentId": agent_id(agent), "name": name, "by": self._client.name}
        content |= {"reason": reason} if reason else {}
        answer = await self._client.ask(SCHEDULER_AGENT, content, "schedule.delete")
        if not answer["ok"] and answer["code"] != "not_found":
            raise ScheduleRefusedError(answer["code"], answer["detail"])

    async def get(self, agent: str, name: str = DEFAULT_NAME) -> ScheduleView | None:
        """An agent's schedule of a name."""
        record = await self._record(agent, name)
        return None if record is None else self._view(record)

    async def get_agent_schedules(self, agent: str) -> list[ScheduleView]:
        """All schedules of an agent, by name."""
        return await self._listed({"agent": agent_id(agent)})

    async def get_scheduled_agents(self) -> list[ScheduleView]:
        """All schedules of the organization, by agent."""
        return await self._listed(None)

    async def get_execution_history(self, agent: str, limit: int = 50) -> list[Session]:
        """What the agent has executed, newest first: start, end, outcome, cost, error.

        Args:
            limit: 1..HISTORY_MAX.
        """
        where = address(self._client.organization, agent)
        found: deque[Session] = deque(maxlen=min(limit, HISTORY_MAX))
        after = 0
        while page := await self._client.store.history(where, after, BATCH_MAX):
            found.extend(one for stored in page if (one := session_of(stored)) is not None)
            after = page[-1].seq
        return list(found)[::-1]

    @staticmethod
    def validate_cron_expression(expression: str) -> bool:
        """Whether `create` takes it as `cron`: it means one thing."""
        try:
            spec_of(ScheduleBody.model_validate({"cron": expression}), "", 0)
        except (ValidationError, FieldError):
            return False
        return True

    # parts

    async def _set(self, agent: str, body: ScheduleBody, revision: int | None) -> ScheduleView:
        try:
            in_order(spec_of(body, agent_id(agent), self._client.clock.now_ms()))
        except FieldError as error:
            raise error.error from None
        content: dict[str, Any] = {
            "agentId": agent, "name": body.name, "schedule": body.to_wire(),
            "by": self._client.name,
        }  # fmt: skip
        if body.reason:
            content["reason"] = body.reason
        if revision is not None:
            content["ifRevision"] = revision
        answer = await self._client.ask(SCHEDULER_AGENT, content, "schedule.set")
        record = await self._record(agent, body.name)
        if not answer["ok"] or record is None:
            raise ScheduleRefusedError(answer.get("code", "deleted"), answer.get("detail", ""))
        return self._view(record)

    async def _record(self, agent: str, name: str) -> Schedule | None:
        key = schedule_key(self._client.organization, agent_id(agent), name)
        document = await self._client.get(SCHEDULES, key)
        return None if document is None else decode_schedule(document.body)

    async def _listed(self, terms: Mapping[str, str] | None) -> list[ScheduleView]:
        found: list[ScheduleView] = []
        after: str | None = None
        while page := await self._client.list(SCHEDULES, terms, after, BATCH_MAX, False):
            found += [self._view(decode_schedule(document.body)) for document in page]
            after = page[-1].key
        return found

    def _view(self, record: Schedule) -> ScheduleView:
        return schedule_view(record, self._client.clock.now_ms())


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
