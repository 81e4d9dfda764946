"""The text of a cron expression, read strictly: sets of values, or an error with its place.

    expression  five fields separated by blanks, or an alias (`@daily`)
    field       item, item, ...
    item        *  */n  a  a-b  a-b/n  a/n (a up to the field's end)  L (day of month: its last)
    value       one or two digits, or a name (JAN, mon) in month and day of week

Day of week is 0..7, both ends Sunday.  Nothing else is read: no seconds, no
`?`, `W`, `#`, `H`, `R`, no range backwards, no step beyond the field.  Sets are
bit masks: bit 5 of `minutes` is minute 5.

Source: crontab(5) of Debian; where dialects read one text differently it is
refused (`ambiguous_day_fields`) unless the dialect is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from runtime.errors import InvalidScheduleError

Dialect = Literal["debian"]
ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
CACHED_MAX: Final = 4_096
"""Fields kept read: many schedules are written with few of them."""
LAST_DAY: Final = 1 << 32
"""The bit of `days` that stands for the last day of a month, whichever it is."""
LONGEST: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""The most days that a month (1..12) can have."""


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    step_max: int
    names: tuple[str, ...] = ()
    last: bool = False

    @property
    def all(self) -> int:
        return sum(1 << value for value in range(self.low, self.high + 1))


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS: Final = (
    _Field("minute", 0, 59, 60),
    _Field("hour", 0, 23, 24),
    _Field("day of month", 1, 31, 31, last=True),
    _Field("month", 1, 12, 12, _MONTHS),
    _Field("day of week", 0, 7, 7, _WEEKDAYS),
)
_TOKEN: Final = re.compile(r"[^ \t]+")
_NUMBER: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Fields:
    """What an expression says, as bit masks."""

    minutes: int
    hours: int
    days: int
    """Bits 1..31 and `LAST_DAY`."""
    months: int
    """Bits 1..12."""
    weekdays: int
    """Bits 0..6, Sunday first."""
    either_day: bool
    """A day matches when day of month OR day of week does; else both must."""
    wildcard: bool
    """Minute or hour begins with `*`: follows real time through gaps and folds."""


def read(text: str, dialect: Dialect | None = None) -> Fields:
    """The fields of an expression.

    Args:
        text: ASCII.

    Raises:
        InvalidScheduleError: `wrong_field_count`, `unknown_alias`, `bad_value`,
            `bad_step`, `out_of_range`, `reversed_range`, `step_exceeds_field`,
            `unsatisfiable`, and `ambiguous_day_fields` unless a dialect says how it is meant.
    """
    tokens = [(match.start(), match.group()) for match in _TOKEN.finditer(text)]
    if tokens and tokens[0][1].startswith("@"):
        place, name = tokens[0][0], text.strip().lower()
        if name not in ALIASES:
            known = " ".join(ALIASES)
            raise InvalidScheduleError("unknown_alias", place, f"only these are known: {known}")
        tokens = [(place, token) for token in ALIASES[name].split()]
    if len(tokens) != len(FIELDS):
        place = tokens[len(FIELDS)][0] if len(tokens) > len(FIELDS) else len(text)
        raise InvalidScheduleError(
            "wrong_field_count",
            place,
            f"{len(tokens)} fields instead of 5: minute hour day-of-month month day-of-week",
        )
    masks = []
    for field, (place, token) in zip(FIELDS, tokens, strict=True):
        try:
            masks.append(_field(field, token))
        except InvalidScheduleError as error:
            raise InvalidScheduleError(error.code, place + error.position, error.detail) from None
    minutes, hours, days, months, weekdays = masks
    weekdays = (weekdays | weekdays >> 7) & 0b1111111
    starred = [token.startswith("*") for _, token in tokens]
    if dialect is None:
        _same_to_all(days, weekdays, starred, tokens)
    fields = Fields(
        minutes, hours, days, months, weekdays,
        either_day=not starred[2] and not starred[4],
        wildcard=starred[0] or starred[1],
    )  # fmt: skip
    _can_be_met(fields, tokens[2][0])
    return fields


def _same_to_all(
    days: int, weekdays: int, starred: list[bool], tokens: list[tuple[int, str]]
) -> None:
    """Refuse what Debian reads as AND and others as OR: `*/2` beside a restricted day."""
    every_day, every_weekday = days == FIELDS[2].all, weekdays == 0b1111111
    if (every_day and starred[2]) or (every_weekday and starred[4]):
        return
    if starred[2] or starred[4]:
        place, token = tokens[2] if starred[2] else tokens[4]
        raise InvalidScheduleError(
            "ambiguous_day_fields",
            place,
            f"{token!r} beside a restricted day: some crons fire when both match, some when "
            "either does; list the days, or name the dialect `debian` (both)",
        )


def _can_be_met(fields: Fields, place: int) -> None:
    months = [month for month in range(1, 13) if fields.months >> month & 1]
    days = fields.days
    if fields.either_day or days & LAST_DAY:
        return
    if not any(days & ((2 << LONGEST[month]) - 1) for month in months):
        raise InvalidScheduleError(
            "unsatisfiable", place, "no such day exists in any of these months"
        )


@lru_cache(CACHED_MAX)
def _field(field: _Field, token: str) -> int:
    """The values of a field; an error's position counts from the token's start."""
    mask = place = 0
    for item in token.split(","):
        mask |= _item(field, item, place)
        place += len(item) + 1
    return mask


def _item(field: _Field, item: str, place: int) -> int:
    span, slash, step_text = item.partition("/")
    step = _step(field, step_text, place + len(span) + 1) if slash else 1
    if span == "*":
        low, high = field.low, field.high
    elif field.last and span.upper() == "L" and not slash:
        return LAST_DAY
    else:
        first, dash, second = span.partition("-")
        low = high = _value(field, first, place)
        if dash:
            high = _value(field, second, place + len(first) + 1)
        elif slash:
            high = field.high
        if high < low:
            raise InvalidScheduleError(
                "reversed_range", place, f"{span} runs backwards; write two ranges with a comma"
            )
    return sum(1 << value for value in range(low, high + 1, step))


def _step(field: _Field, text: str, place: int) -> int:
    if not _NUMBER.fullmatch(text) or text.startswith("0"):
        raise InvalidScheduleError("bad_step", place, f"{text!r} is not a step of 1 or more")
    if int(text) > field.step_max:
        raise InvalidScheduleError(
            "step_exceeds_field",
            place,
            f"a step of {text} is longer than the field {field.name}, which has {field.step_max}",
        )
    return int(text)


def _value(field: _Field, text: str, place: int) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    if not _NUMBER.fullmatch(text) or (len(text) > 2 and text.startswith("0")):
        names = f" or a name such as {field.names[1].upper()}" if field.names else ""
        raise InvalidScheduleError(
            "bad_value", place, f"{text!r} is no {field.name}: {field.low}-{field.high}{names}"
        )
    value = int(text)
    if not field.low <= value <= field.high:
        raise InvalidScheduleError(
            "out_of_range", place, f"{text} is no {field.name}: {field.low}-{field.high}"
        )
    return value
