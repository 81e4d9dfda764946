"""Cron verified: published vectors, every minute looked at, and a second reader.

    vectors    cron_vectors.json: due times of 35 expressions, codes of 26 invalid texts
    cases      thousands of seeded cases; all due times of some days beside those of
               `cronscan`, and what is next from instants between them: a restart, a
               clock set back or forward, inside a fold too
    readings   each expression's values beside those that croniter reads

A due time that one has and the other has not is a mismatch; none is allowed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from random import Random
from typing import Any, Final

from croniter import CroniterError, croniter

from runtime.errors import InvalidScheduleError
from runtime.schedule.cronfields import FIELDS, LAST_DAY, read
from runtime.schedule.plan import parse
from runtime.verify.croncases import Case, Place, case, place
from runtime.verify.cronscan import Window, due_far, understand, zone_info
from runtime.verify.report import Outcome

Next = Callable[[str, str, int], int | None]
"""Expression, zone and UTC milliseconds -> the next due UTC milliseconds."""
CASES_A_PLACE: Final = 8
"""Expressions tried on the same minutes: reading the clock is what takes time."""
RESTARTS: Final = 4
"""Instants of a case from which what is next is asked anew."""
HALF: Final = timedelta(hours=40)
"""Scanned before and after the middle of a place."""
FAR_YEARS: Final = 12
DETAILS_MAX: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def next_due(expression: str, zone: str, after_ms: int) -> int | None:
    """What Troupe says."""
    return parse(expression, zone, dialect="debian").next_after(after_ms)


def verify(cases: int, seed: int, subject: Next = next_due) -> Outcome:
    """Compare; `subject` is what is verified."""
    began = time.monotonic()
    tally = _Tally(subject)
    vectors = _vectors(tally)
    rng = Random(seed)  # noqa: S311 - cases, not secrets
    done = 0
    while done < cases:
        at = place(rng)
        window = Window(zone_info(at.zone), at.middle - HALF, at.middle + HALF)
        for _ in range(min(CASES_A_PLACE, cases - done)):
            one = case(rng, at)
            _compare(tally, one, at, window, rng)
            _read_again(tally, one.expression)
            done += 1
    figure = {
        "vectors": vectors,
        "cases": done,
        "seed": seed,
        "dueTimes": tally.compared,
        "mismatches": len(tally.wrong),
        "seconds": round(time.monotonic() - began, 1),
    }
    sentence = (
        f"{vectors} vectors and {done} cases with {tally.compared} due times: "
        f"{len(tally.wrong)} mismatches."
    )
    good = not tally.wrong and tally.compared > 0
    return Outcome(figure, sentence, good, tally.wrong[:DETAILS_MAX])


@dataclass
class _Tally:
    subject: Next
    compared: int = 0
    wrong: list[str] = field(default_factory=list)

    def check(self, expression: str, zone: str, after_ms: int, expected: list[int]) -> None:
        """The subject's chain of due times from an instant on must be the expected one."""
        now = after_ms
        for one in expected:
            found = self.subject(expression, zone, now)
            self.compared += 1
            if found != one:
                self.differs(f"{expression!r} in {zone} after {_text(now)}: {_text(found)}, "
                             f"expected {_text(one)}")  # fmt: skip
                return
            now = one

    def differs(self, line: str) -> None:
        self.wrong.append(line)


def _compare(tally: _Tally, one: Case, at: Place, window: Window, rng: Random) -> None:
    sets, after_ms = understand(one.expression), _ms(one.after)
    if one.far:
        found = due_far(sets, zone_info(one.zone), one.after, FAR_YEARS, 2)
        tally.check(one.expression, one.zone, after_ms, [_ms(utc) for utc in found])
        return
    expected = [_ms(utc) for utc in window.due(sets)]
    first, last = _ms(at.middle - HALF), _ms(at.middle + HALF)
    starts = [first, after_ms, *(rng.randrange(first, last) for _ in range(RESTARTS))]
    for number, start in enumerate(starts):
        later = [ms for ms in expected if ms > start]
        tally.check(one.expression, one.zone, start, later if number == 0 else later[:1])
    silent_from = max([first, *expected])
    found_next = tally.subject(one.expression, one.zone, silent_from)
    if found_next is not None and found_next <= last:
        tally.differs(f"{one.expression!r} in {one.zone}: {_text(found_next)} is too much")


def _read_again(tally: _Tally, expression: str) -> None:
    """Compare the values with those croniter reads, where it reads as crontab(5) says.

    It takes `5-5` for every minute and ends `1/2` in the day of week at 6, not at 7.
    """
    if expression.startswith("@"):
        return
    ours = read(expression, "debian")
    masks = (ours.minutes, ours.hours, ours.days, ours.months, ours.weekdays)
    texts = expression.split()
    try:
        read_there = croniter.expand(expression)[0]
    except CroniterError as error:
        return tally.differs(f"{expression!r}: croniter refuses it: {error}")
    for field_, mask, text, values in zip(FIELDS, masks, texts, read_there, strict=True):
        own_way = any(
            _is_one(part) or (field_.high == 7 and part[0].isdigit() and "/" in part)
            for part in text.split(",")
        )
        if not own_way and mask != _mask(values, field_.low, field_.high):
            tally.differs(f"{text!r} as {field_.name}: {mask:b}, croniter reads {values}")


def _is_one(part: str) -> bool:
    first, dash, second = part.partition("/")[0].partition("-")
    return bool(dash) and first == second


def _mask(values: list[Any], low: int, high: int) -> int:
    mask = 0
    for value in values:
        if value == "*":
            mask |= sum(1 << number for number in range(low, high + 1))
        else:
            mask |= LAST_DAY if value == "l" else 1 << value
    return (mask | mask >> 7) & 0x7F if high == 7 else mask


def _vectors(tally: _Tally) -> int:
    """Check the published vectors; how many there are."""
    text = resources.files("runtime.verify").joinpath("cron_vectors.json").read_text()
    vectors = json.loads(text)
    for one in vectors["valid"]:
        expected = [_ms(datetime.fromisoformat(utc)) for utc in one["expect_utc"]]
        after_ms = _ms(datetime.fromisoformat(one["after"]))
        tally.check(one["expr"], one["tz"], after_ms, expected)
    for one in vectors["invalid"]:
        code = _code(one["expr"])
        if code != one["error"]:
            tally.differs(f"{one['expr']!r}: {code}, expected {one['error']}")
    return len(vectors["valid"]) + len(vectors["invalid"])


def _code(expression: str) -> str:
    try:
        parse(expression)
    except InvalidScheduleError as error:
        return error.code
    return "accepted"


def _ms(at: datetime) -> int:
    return (at - _EPOCH) // _MS


def _text(ms: int | None) -> str:
    return "never" if ms is None else (_EPOCH + ms * _MS).isoformat()
