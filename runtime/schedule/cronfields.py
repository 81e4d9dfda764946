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
from typing import Final, Literal, NamedTuple

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


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS: Final = (
    _Field("minute", 0, 59, 60),
    _Field("hour", 0, 23, 24),
    _Field("day of month", 1, 31, 31, last=True),
    _Field("month", 1, 12, 12, _MONTHS),
    _Field("day of week", 0, 7, 7, _WEEKDAYS),
)
ALL_DAYS: Final = 0xFFFFFFFE
ALL_WEEKDAYS: Final = 0x7F
_IN_EVERY_MONTH: Final = 0x3FFFFFFE | LAST_DAY
"""1..29 and the last: days that some February has."""
DIGITS_MAX: Final = 2
"""No value and no step is longer."""
_TOKEN: Final = re.compile(r"[^ \t]+")
_NUMBER: Final = re.compile(r"[0-9]+")


class Fields(NamedTuple):
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
    tokens = _TOKEN.findall(text)
    if len(tokens) != len(FIELDS) or tokens[0][0] == "@":
        tokens = _alias(text, tokens)
    try:
        masks = [_field(index, token) for index, token in enumerate(tokens)]
    except InvalidScheduleError:
        raise _placed(text) from None
    minutes, hours, days, months, weekdays = masks
    weekdays = (weekdays | weekdays >> 7) & ALL_WEEKDAYS
    starred = [token[0] == "*" for token in tokens]
    if not days & _IN_EVERY_MONTH and (starred[2] or starred[4]):
        _exists(days, months, text)
    if dialect is None and (starred[2] or starred[4]):
        _same_to_all(text, tokens, days, weekdays)
    return Fields(
        minutes, hours, days, months, weekdays,
        not starred[2] and not starred[4],
        starred[0] or starred[1],
    )  # fmt: skip


def _alias(text: str, tokens: list[str]) -> list[str]:
    """The fields of an alias."""
    if tokens and tokens[0][0] == "@":
        name = text.strip(" \t").lower()
        if name in ALIASES:
            return ALIASES[name].split()
        known = " ".join(ALIASES)
        raise InvalidScheduleError(
            "unknown_alias", _place(text, 0), f"only these are known: {known}"
        )
    one = len(tokens) == 1
    found = "1 field" if one else f"{len(tokens)} fields"
    span = one or (tokens and tokens[-1].isalpha())  # as a rule something else was meant
    another = "; an interval is such as `every 30 minutes` or PT30M" if span else ""
    raise InvalidScheduleError(
        "wrong_field_count",
        _place(text, len(FIELDS)),
        f"{found} instead of 5: minute hour day-of-month month day-of-week{another}",
    )


def _place(text: str, index: int) -> int:
    """Where a field begins; the text's end if there is no such field."""
    places = [match.start() for match in _TOKEN.finditer(text)]
    return places[index] if index < len(places) else len(text)


def _placed(text: str) -> InvalidScheduleError:
    """What is wrong with the first wrong field, with its position in the whole text."""
    for index, match in enumerate(_TOKEN.finditer(text)):
        try:
            _field(index, match.group())
        except InvalidScheduleError as error:
            return InvalidScheduleError(error.code, match.start() + error.position, error.detail)
    raise AssertionError("a field was wrong")


def _same_to_all(text: str, tokens: list[str], days: int, weekdays: int) -> None:
    """Refuse what Debian reads as AND and others as OR: `*/2` or `*/1` beside a restricted day."""
    every = {2: days & ALL_DAYS == ALL_DAYS, 4: weekdays == ALL_WEEKDAYS}
    if all(every.values()):
        return
    if any(every[at] and tokens[at][0] == "*" and "/" not in tokens[at] for at in every):
        return
    raise InvalidScheduleError(
        "ambiguous_day_fields",
        _place(text, 2 if tokens[2][0] == "*" else 4),
        "a step in one day field beside a restricted other: some crons fire when both match, "
        "some when either does; list the days, or name the dialect `debian` (both)",
    )


def _exists(days: int, months: int, text: str) -> None:
    if not any(
        months >> month & 1 and days & ((2 << LONGEST[month]) - 1) for month in range(1, 13)
    ):
        raise InvalidScheduleError(
            "unsatisfiable", _place(text, 2), "no such day exists in any of these months"
        )


@lru_cache(CACHED_MAX)
def _field(index: int, token: str) -> int:
    """The values of a field; an error's position counts from the token's start."""
    mask = place = 0
    for item in token.split(","):
        mask |= _item(FIELDS[index], item, place)
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
    if len(text) > DIGITS_MAX or int(text) > field.step_max:
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
    if len(text) > DIGITS_MAX or not field.low <= int(text) <= field.high:
        raise InvalidScheduleError(
            "out_of_range", place, f"{text} is no {field.name}: {field.low}-{field.high}"
        )
    return int(text)
