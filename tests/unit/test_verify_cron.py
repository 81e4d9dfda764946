"""The verification of cron: it passes, and finds what is wrong in others."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from croniter import croniter

from runtime.schedule.cronfields import read
from runtime.schedule.plan import parse
from runtime.verify import cron
from runtime.verify.__main__ import main
from runtime.verify.cron import Next, next_due, verify
from runtime.verify.cronscan import zone_info


def test_due_times_are_those_of_a_scan_of_every_minute() -> None:
    """A due time around a change of the clock would be missed, doubled or invented."""
    outcome = verify(cases=240, seed=20_261)
    assert outcome.good, outcome.details
    assert outcome.figure["mismatches"] == 0
    assert outcome.figure["vectors"] == 61
    assert outcome.figure["dueTimes"] > 2_000


def twice_in_a_fold(expression: str, zone: str, after_ms: int) -> int | None:
    """What croniter says."""
    after = datetime.fromtimestamp(after_ms / 1000, zone_info(zone))
    found: datetime = croniter(expression, after).get_next(datetime)
    return int(found.timestamp() * 1000)


def as_wildcard(expression: str, zone: str, after_ms: int) -> int | None:
    """Every expression as if it followed real time."""
    plan = parse(expression, zone, dialect="debian")
    assert not isinstance(plan.when, int)
    plan.when.wildcard = True  # type: ignore[union-attr]
    try:
        return plan.next_after(after_ms)
    finally:
        plan.when.wildcard = plan.when.fields.wildcard  # type: ignore[union-attr]


def on_another_day(expression: str, zone: str, after_ms: int) -> int | None:
    """In UTC, whatever the zone."""
    return next_due(expression, "UTC", after_ms)


def inclusive(expression: str, zone: str, after_ms: int) -> int | None:
    """At or after the instant."""
    return next_due(expression, zone, after_ms - 1)


@pytest.mark.parametrize("subject", [twice_in_a_fold, as_wildcard, on_another_day, inclusive])
def test_what_is_wrong_is_found(subject: Next) -> None:
    """A verification that finds nothing in a wrong implementation verifies nothing."""
    outcome = verify(cases=40, seed=1, subject=subject)
    assert not outcome.good
    assert outcome.figure["mismatches"] > 0
    assert outcome.details


def test_a_due_time_too_many_is_found() -> None:
    """Only what is missing would be noticed."""

    def one_more(expression: str, zone: str, after_ms: int) -> int | None:
        return next_due(expression, zone, after_ms) or after_ms + 60_000

    def never_silent(expression: str, zone: str, after_ms: int) -> int | None:
        found = next_due(expression, zone, after_ms)
        return found if found is not None and found - after_ms < 86_400_000 else after_ms + 60_000

    assert verify(cases=40, seed=3, subject=one_more).good
    assert not verify(cases=40, seed=3, subject=never_silent).good


def test_the_same_seed_gives_the_same_cases() -> None:
    """A mismatch could not be looked at again."""
    first, second = (verify(cases=16, seed=5).figure for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_the_command_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    """An operator could not run it."""
    assert main(["cron", "--cases", "8", "--seed", "2"]) == 0
    assert '"mismatches": 0' in capsys.readouterr().out


def test_nothing_is_shared_with_what_is_verified() -> None:
    """A mistake in common code would agree with itself."""
    source = Path(cron.__file__).with_name("cronscan.py").read_text()
    assert "runtime." not in source.replace("`runtime.schedule`", "")


def test_a_field_that_is_read_in_another_way_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reader would be there for show."""
    monkeypatch.setattr(cron, "read", lambda text, dialect: read(text, dialect)._replace(hours=1))
    outcome = verify(cases=16, seed=5)
    assert not outcome.good
    assert "croniter reads" in outcome.details[0]
