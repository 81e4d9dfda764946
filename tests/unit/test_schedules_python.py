"""Schedules under the names that Python programs know them by."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from runtime.errors import InvalidScheduleError, ScheduleRefusedError
from runtime.keys import Role
from runtime.schedule.spec import FieldError, ScheduleBody, spec_of
from runtime.schedules import Schedules
from tests.http import HttpTroupe
from tests.troupe import LocalTroupe

AGENT = "backend:acme.api"


async def test_the_names_of_the_source_documents_do_what_they_say() -> None:
    """A program written by the documents would not run."""
    troupe = LocalTroupe({})
    troupe.start_scheduler()
    them = Schedules(HttpTroupe(troupe.store, troupe.clock).door())
    try:
        made = await them.create(AGENT, {"cron": "0 9 * * *", "timezone": "Europe/Berlin"})
        assert (made.status, made.priority, len(made.next)) == ("active", "NORMAL", 5)
        changed = await them.update_schedule(AGENT, {"interval": "PT30M", "catchUp": {"cap": 3}})
        assert (changed.interval, changed.cron, changed.catch_up.cap) == ("PT30M", None, 3)
        assert changed.timezone == "Europe/Berlin"
        changed = await them.update(AGENT, {"catchUp": {"policy": "all"}})
        assert (changed.catch_up.policy, changed.catch_up.cap) == ("all", 3)
        await them.update(AGENT, {"nightly": "01:00-02:00"})
        changed = await them.update(AGENT, {"cron": "0 9 * * *"})
        assert changed.catch_up.window_s == 86_400
        with pytest.raises(InvalidScheduleError, match="bad_bounds"):
            await them.update(AGENT, {"start": "2027-01-01", "end": "2026-01-01"})
        await them.create(AGENT, {"name": "push", "event": "push"})
        assert [one.name for one in await them.get_agent_schedules(AGENT)] == ["default", "push"]
        assert len(await them.get_scheduled_agents()) == 2
        assert await them.get_execution_history(AGENT) == []
        await them.delete(AGENT)
        assert await them.get(AGENT) is None
        with pytest.raises(InvalidScheduleError) as raised:
            await them.create(AGENT, {"cron": "0 0 */2 * 1"})
        assert raised.value.code == "ambiguous_day_fields"
    finally:
        await troupe.kill_scheduler()
        await troupe.store.close()


async def test_what_is_asked_for_from_python_is_answered_as_over_http() -> None:
    """Why would be in no audit trail, another name left out, and no name be `default`."""
    troupe = LocalTroupe({})
    troupe.start_scheduler()
    api = HttpTroupe(troupe.store, troupe.clock)
    them = Schedules(api.door())
    try:
        await them.create(AGENT, {"cron": "0 9 * * *", "reason": "brief 7"})
        await them.update(AGENT, {"name": "default", "priority": "HIGH", "reason": "late"})
        with pytest.raises(ScheduleRefusedError) as raised:
            await them.update(AGENT, {"name": "other"})
        assert raised.value.args[0] == "not_changeable"
        for name in ("", "Default"):
            await them.delete(AGENT, name)
        assert (await them.get(AGENT)) is not None
        async with await api.client(Role.ADMIN) as client:
            trail = (await client.get("/api/audit")).text
        assert re.findall(r'"reason":"([^"]+)"', trail) == ["brief 7", "late"]
    finally:
        await troupe.kill_scheduler()
        await troupe.store.close()


def test_an_expression_is_valid_when_it_means_one_thing() -> None:
    """A form would accept what is refused afterwards."""
    assert Schedules.validate_cron_expression("*/30 9-17 * * 1-5")
    assert not Schedules.validate_cron_expression("0 0 */2 * 1")
    assert not Schedules.validate_cron_expression("every 30 minutes")


@pytest.mark.parametrize(
    "text",
    ["0 0 * * *\n", "\t0 0 * * * ", "1" * 5_000 + " * * * *", "*/" + "1" * 5_000 + " * * * *",
     "0," * 200 + "0 * * * *", "", " ", "PT30M", "2026-11-05", "0 0 * * \0", "\u00a00 0 * * *",
     "\uff11 * * * *", "\ud800 * * * *", "@daily", "@reboot", None, 5],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_an_expression_is_valid_when_create_takes_it(text: Any) -> None:
    """A form would meet an error that it does not await, or say another thing than the server."""
    try:
        spec_of(ScheduleBody.model_validate({"cron": text}), AGENT, 0)
        taken = True
    except (ValidationError, FieldError):
        taken = False
    assert Schedules.validate_cron_expression(text) is taken
    assert taken is (text in ("0 0 * * *\n", "\t0 0 * * * ", "@daily"))
