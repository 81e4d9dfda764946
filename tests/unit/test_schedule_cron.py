"""Cron: the published vectors, and what they leave open."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InvalidScheduleError
from runtime.schedule.cron import Cron
from runtime.schedule.instants import local_text_of, text_of
from runtime.schedule.plan import parse

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "cron_vectors.json").read_text())


def ms(text: str) -> int:
    """UTC milliseconds of an ISO instant with an offset."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda v: v["id"])
def test_a_vector_is_due_when_it_says(vector: dict[str, Any]) -> None:
    """Work would run at another time than cron promises, twice, or never."""
    plan = parse(vector["expr"], vector["tz"])
    assert isinstance(plan.when, Cron)
    assert plan.when.wildcard == (vector["kind"] == "wildcard")
    due, found = ms(vector["after"]), []
    for _ in vector["expect_utc"]:
        due = plan.next_after(due)
        assert due is not None
        found.append(due)
    assert [text_of(one) for one in found] == [t[:-1] + ":00Z" for t in vector["expect_utc"]]
    assert [local_text_of(one, plan.zone) for one in found] == vector["expect_local"]
    assert plan.due_between(ms(vector["after"]), found[-1], 100) == found


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda v: v["expr"] or "empty")
def test_an_invalid_vector_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    """A mistyped schedule would be accepted and run at times nobody meant."""
    with pytest.raises(InvalidScheduleError) as caught:
        parse(vector["expr"])
    assert caught.value.code == vector["error"]
    assert 0 <= caught.value.position <= len(vector["expr"])
