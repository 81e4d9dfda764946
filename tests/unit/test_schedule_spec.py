"""What is asked for, as a spec: its places, its windows, and what was stored before."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from runtime.schedule.nightly import window_s
from runtime.schedule.policy import Moment, drain, settle
from runtime.schedule.record import Spec, Waiting, decode_spec, encode
from runtime.schedule.spec import FieldError, ScheduleBody, plan_of, spec_of
from runtime.schedule.view import body_of

AGENT = "qa:acme.api"
MINUTE_MS = 60_000


def spec(**asked: Any) -> Spec:
    return spec_of(ScheduleBody.model_validate(asked), AGENT, 0)


@pytest.mark.parametrize(
    ("asked", "code", "position"),
    [
        ({"at": "garbage"}, "bad_instant", 0),
        ({"at": ""}, "bad_instant", 0),
        ({"at": "   "}, "bad_instant", 0),
        ({"at": " \tgarbage"}, "bad_instant", 2),
        ({"at": "  2026-03-08T02:30", "timezone": "America/New_York"}, "nonexistent_time", 2),
        ({"at": " \uff12026-01-01"}, "non_ascii", 1),
        ({"cron": "  61 * * * *"}, "out_of_range", 2),
        ({"cron": " \n0 61 * * *"}, "out_of_range", 4),
        ({"cron": "  PT30M"}, "wrong_kind", 2),
        ({"cron": "\u00a00 0 * * *"}, "non_ascii", 0),
        ({"interval": "   every fortnight"}, "bad_interval", 9),
        ({"cron": "@daily", "start": ""}, "bad_instant", 0),
        ({"cron": "@daily", "end": ""}, "bad_instant", 0),
    ],
)
def test_a_place_counts_in_the_text_as_it_was_given(
    asked: dict[str, Any], code: str, position: int
) -> None:
    """A form would mark a character that is right, and an empty bound would be no bound."""
    with pytest.raises(FieldError) as caught:
        spec(**asked)
    error = caught.value.error
    assert (error.code, error.position) == (code, position)


@pytest.mark.parametrize(
    ("field", "text"),
    [("cron", " 0 9 * * *\n"), ("interval", "\tPT5M "), ("at", " 2026-11-05T09:00 ")],
)
def test_blanks_around_a_text_are_not_kept(field: str, text: str) -> None:
    """The same schedule would be another revision for a blank."""
    found = spec(**{field: text})
    assert found == spec(**{field: text.strip()})
    assert found.expression == plan_of(found).text == text.strip()


def test_a_nightly_is_caught_up_while_its_window_lasts() -> None:
    """A night's work would run in the day, or the next schedule inherit the night's end."""
    nightly = spec(nightly="22:00-04:00", catchUp={"policy": "latest"})
    due_ms = plan_of(nightly).next_after(0)
    assert due_ms is not None
    left_ms = (4 * 60 * MINUTE_MS - due_ms) % (24 * 60 * MINUTE_MS)
    assert window_s(nightly) * 1000 == left_ms
    for passed_ms, waits in ((left_ms, 1), (left_ms + 1, 0)):
        moment = Moment(due_ms + passed_ms)
        assert len(settle(nightly, [], [due_ms], moment, late=1).waiting) == waits
        drained = drain(nightly, [Waiting(due_ms, True)], moment, paced=True)
        assert len(drained.fires) == waits
    kept = body_of(nightly, "default")
    assert kept.catch_up.window_s == 86_400
    assert window_s(spec(nightly="22:00-04:00", catchUp={"windowS": 30})) == 30


def test_a_nightly_that_was_stored_with_its_shortened_window_can_be_read() -> None:
    """An upgrade would stop the schedules that are there."""
    stored = b"""{"kind":"cron","expression":"12 1 * * *","nightly":"01:00-02:00",
        "catchUp":{"windowS":2880}}"""
    found = decode_spec(stored)
    assert window_s(found) == 2_880
    assert decode_spec(encode(found)) == found


def test_an_empty_repository_is_none() -> None:
    """Nothing would ever be unchanged, and nobody be told."""
    with pytest.raises(ValidationError, match="onlyIfChanged needs a repository"):
        spec(cron="@daily", repository="", onlyIfChanged=True)
    stored = Spec("cron", "@daily", repository="", only_if_changed=True)
    assert not body_of(stored, "default").only_if_changed
