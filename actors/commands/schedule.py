"""`troupe schedule`: when agents run by themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from actors.commands.base import Session, TroupeCommand, TroupeGroup
from actors.commands.failures import WrongUsageError
from runtime.errors import InvalidScheduleError
from runtime.schedule.instants import instant, local_text_of, text_of
from runtime.schedule.plan import Plan, parse

NEXT_MAX = 1_000


@click.group(cls=TroupeGroup)
def schedule() -> None:
    """When agents run by themselves."""


class InvalidExpressionError(WrongUsageError):
    """A schedule that can't be meant; `--json` gives its code and position."""

    def __init__(self, text: str, error: InvalidScheduleError) -> None:
        shown = text and text.isprintable()
        super().__init__(
            f"{error.detail} ({error.code} at position {error.position}).",
            f"{text}\n{'':{min(error.position, len(text))}}^" if shown else None,
        )
        self.error = error

    def to_wire(self) -> dict[str, Any]:
        return {**super().to_wire(), "code": self.error.code, "position": self.error.position}


def misread(text: str, code: str, position: int, detail: str) -> InvalidExpressionError:
    """The same for an expression that the server has read."""
    return InvalidExpressionError(text, InvalidScheduleError(code, position, detail))


class _WithExpression(TroupeCommand):
    """Takes an expression that begins with a dash for what it is: a wrong one, not an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with_value = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        dashed = [
            place
            for place, arg in enumerate(args)
            if arg.startswith("-")
            and (" " in arg or arg[1:2].isdigit())
            and (place == 0 or args[place - 1] not in with_value)
        ]
        if len(dashed) == 1 and "--" not in args:
            [place] = dashed
            args = [*args[:place], *args[place + 1 :], "--", args[place]]
        return super().parse_args(ctx, args)


@schedule.command(
    "next",
    cls=_WithExpression,
    examples=[
        """troupe schedule next "30 2 * * *" --tz America/New_York -n 5""",
        """troupe schedule next "every 30 minutes" --after 2026-11-05T09:00:00Z --json""",
        """troupe schedule next "0 0 */2 * 1" --dialect debian""",
    ],
)
@click.argument("expression", metavar="EXPR")
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="IANA time zone.")
@click.option("--after", metavar="ISO", help="Strictly after this instant [now].")
@click.option("--start", metavar="ISO", help="Nothing is due before; an interval counts from it.")
@click.option("--end", metavar="ISO", help="Nothing is due after.")
@click.option("-n", "count", type=click.IntRange(1, NEXT_MAX), default=5, show_default=True)
@click.option(
    "--dialect",
    type=click.Choice(["debian"]),
    help="How day fields are meant on which crons differ.",
)
def next_(
    session: Session, expression: str, tz: str, after: str | None, count: int, **bounds: Any
) -> None:
    """Show when EXPR is due next; no running Troupe is needed.

    EXPR is cron with five fields (`30 2 * * *`, `@daily`, `0 0 L * *`), an interval
    (`every 30 minutes`, PT30M, R10/2026-11-05T09:00:00Z/P1D) or one instant. An
    interval without a start counts from --after.
    """
    plan, after_ms = _plan(expression, tz, after, **bounds)
    due = after_ms
    found: list[int] = []
    while len(found) < count and (following := plan.next_after(due)) is not None:
        found.append(due := following)
    if session.out.as_json:
        shown = [text_of(ms) for ms in found]
        return session.out.result({"expr": expression, "tz": tz, "next": shown})
    if tz == "UTC":
        rows = [[text_of(ms)] for ms in found]
        return session.out.table(["UTC"], rows, "Never again.", whole=True)
    rows = [[local_text_of(ms, plan.zone), text_of(ms)] for ms in found]
    return session.out.table([f"LOCAL ({tz})", "UTC"], rows, "Never again.", whole=True)


def _plan(
    expression: str, tz: str, after: str | None, start: str | None, end: str | None, dialect: Any
) -> tuple[Plan, int]:
    """The plan and the instant to begin after."""
    told: str | None = tz
    try:
        zone = parse("@daily", tz).zone
        moments = []
        for told in (after, start, end):
            moments.append(instant(told, zone) if told is not None else None)
        begin, told = moments[0], expression
        after_ms = int(datetime.now(UTC).timestamp() * 1000) if begin is None else begin
        plan = parse(
            expression, tz, anchor_ms=after_ms, start_ms=moments[1], end_ms=moments[2],
            dialect=dialect,
        )  # fmt: skip
        if moments[1] is not None and moments[2] is not None and moments[2] < moments[1]:
            told = end
            raise InvalidScheduleError("bad_bounds", 0, "it ends before it starts")
    except InvalidScheduleError as error:
        raise InvalidExpressionError(told or "", error) from error
    return plan, after_ms
