"""Why a queued job does not start, from the records that the API answers."""

from __future__ import annotations

from typing import Any

import pytest

from actors.commands.stalled import ahead, limited
from actors.commands.words import REASONS

LIMITS = {"organization": 4, "repository": 2, "agent": 1, "key": 1}


def job(id: str, minute: int = 0, priority: str = "normal", **fields: Any) -> dict[str, Any]:
    queued = f"2026-11-21T08:{minute:02d}:00.000Z"
    return {"id": id, "queuedAt": queued, "priority": priority, **fields}


def status(running: int, **limits: int) -> dict[str, Any]:
    return {"running": running, "maxConcurrent": 5, "limits": {**LIMITS, **limits}}


@pytest.mark.parametrize(
    ("code", "own", "running", "limits"),
    [
        ("agent_full", {"agentId": "qa:a"}, [{"agentId": "qa:a"}], {}),
        ("repository_full", {"repository": "/r"}, [{"repository": "/r"}] * 2, {}),
        ("limit_key_full", {"limitKey": "k"}, [{"limitKey": "k"}], {}),
        ("organization_full", {}, [{}] * 4, {}),
        ("slots_full", {}, [{}] * 5, {"organization": 0}),
        (None, {"repository": "/r"}, [{"repository": "/r"}, {"repository": "/s"}], {}),
        (None, {"repository": "/r"}, [{"repository": "/r"}] * 3, {"repository": 0}),
        (None, {}, [{"limitKey": None, "agentId": None}], {}),
    ],
)
def test_the_limit_that_stops_a_job_is_named(
    code: str | None, own: dict[str, str], running: list[dict[str, Any]], limits: dict[str, int]
) -> None:
    """Whoever waits would look for a fault where there is a limit, or raise another one."""
    assert limited(job("job_1", **own), running, status(len(running), **limits)) == code
    assert code is None or code in REASONS


def test_everybodys_slots_are_counted_and_not_only_ones_own() -> None:
    """An organization that runs nothing would be told that its job may start."""
    assert limited(job("job_1"), [], status(5)) == "slots_full"


def test_who_is_before_a_job_is_counted_with_its_ageing() -> None:
    """The count would go by the priority alone, or by the time alone."""
    mine = job("job_5", 30, "low")
    others = [
        job("job_1", 49, "high"),  # nineteen minutes later, and two steps more urgent
        job("job_2", 51, "high"),
        job("job_3", 29, "low"),
        job("job_4", 30, "low"),
        job("job_6", 30, "low"),
        job("job_7", 0, "critical", notBeforeMs=9_999_999_999_999),
    ]
    assert ahead(mine, [*others, mine]) == 3
