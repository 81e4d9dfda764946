"""What the command writes: nothing hidden, nothing but JSON with --json."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from actors.commands.failures import CommandError
from actors.commands.jobs import say_job
from actors.commands.output import Output, Slowness, visible
from actors.commands.schedule_view import say_due
from actors.commands.words import age, dollars, duration, reason, remedy, scheduler_state


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\x1b[2Kgone", "\\x1b[2Kgone"),
        ("a\rb", "a\\x0db"),
        ("a\u202eb", "a\\u202eb"),
        ("pass\u200bword", "pass\\u200bword"),
        ("a\u2028b", "a\\u2028b"),
        ("\x9b31m", "\\x9b31m"),
        ("\udce9", "\\udce9"),
    ],
)
def test_nothing_in_a_text_moves_the_cursor_or_hides(hidden: str, shown: str) -> None:
    """A person would approve another change than the one that is there."""
    assert visible(hidden) == shown


def test_letters_of_all_languages_are_left_alone() -> None:
    """Users who do not write ASCII could not read their own issues."""
    text = "größer — 検索 — поиск — 🙂\n\tend"
    assert visible(text) == text


def test_a_diff_is_shown_with_what_it_hides(capsys: pytest.CaptureFixture[str]) -> None:
    """A Trojan-source change would look harmless in `troupe review show`."""
    Output(as_json=False).diff("+if admin\u202e:\n-x\x1b[8m\n".encode())
    assert capsys.readouterr().out == "+if admin\\u202e:\n-x\\x1b[8m\n"


def test_a_patch_in_a_pipe_is_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """`troupe jobs diff ID | git apply` would fail on other encodings and line ends."""
    patch = b"+caf\xe9\r\n-\x1b[0m\n"
    Output(as_json=False).patch(patch)
    assert capfdbinary.readouterr().out == patch


def test_markup_of_others_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A title such as `[red]` would vanish or break the command."""
    out = Output(as_json=False)
    out.say("[bold]title[/bold] [link=x]")
    out.table(["A", "TITLE"], [["1", "[/nope] :smile:"]], "none")
    shown = capsys.readouterr().out
    assert "[bold]title[/bold] [link=x]" in shown
    assert "[/nope] :smile:" in shown


def test_a_table_in_a_pipe_is_cut_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts would read half of an id or a title."""
    title = "word " * 60
    Output(as_json=False).table(["ISSUE", "TITLE"], [["issue_1", title]], "none")
    assert title.strip() in capsys.readouterr().out


def test_an_id_is_not_cut_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """It could not be copied into the next command."""
    out = Output(as_json=False)
    out.terminal = True
    ids = ["job_01M813WW5WP50VCXXWXQ4M0JGP"] * 6
    out.table(["A"] * 6, [ids], "none", whole=True)
    assert capsys.readouterr().out.count(ids[0]) == 6
    out.table(["A"] * 6, [ids], "none")
    assert capsys.readouterr().out.count(ids[0]) == 5


def test_a_due_time_is_not_cut_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an instant half would be shown, without its time of day."""
    monkeypatch.setenv("COLUMNS", "40")
    out = Output(as_json=False)
    out.terminal = True
    fire = {"local": "2026-11-24T02:30:00-03:00", "utc": "2026-11-24T05:30:00Z"}
    for zone in ("America/Argentina/ComodRivadavia", "UTC"):
        say_due(out, zone, [fire], "none")
        assert fire["utc"] in capsys.readouterr().out


def test_a_text_that_the_terminal_can_not_show_is_spelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of an answer with one foreign letter half would be shown, then a traceback."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    Output(as_json=False).pairs([("why", "für 日本"), ("status", "active")])
    assert written.getvalue() == b"why     f\xfcr \\u65e5\\u672c\nstatus  active\n"


class Full(io.RawIOBase):
    """Takes nothing."""

    def __init__(self, code: int) -> None:
        self._code = code

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(self._code, os.strerror(self._code))


def test_an_answer_that_can_not_be_written_is_a_failure_unless_its_reader_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk would be a traceback, or `| head -1` a sentence about the disk."""
    streams: list[Any] = [Full(errno.ENOSPC), Full(errno.EPIPE)]
    full, gone = (io.TextIOWrapper(one, write_through=True) for one in streams)
    monkeypatch.setattr(sys, "stdout", full)
    out = Output(as_json=False)
    for write in (lambda: out.say("a"), lambda: out.result({}), lambda: out.patch(b"+1\n")):
        with pytest.raises(CommandError, match="can't be written: No space left on device"):
            write()
    monkeypatch.setattr(sys, "stdout", gone)
    with pytest.raises(BrokenPipeError):
        out.result({})


def test_what_takes_its_time_says_so_and_not_more_than_that() -> None:
    """A person would not know whether it hangs, or would read nothing else."""
    now_s, said = 0.0, list[str]()
    slowness = Slowness(said.append, lambda: now_s)
    for now_s in (0.5, 1.9, 2.0, 2.5, 6.9, 7.0, 7.1):
        slowness.say(f"at {now_s}")
    assert said == ["at 2.0", "at 7.0"]


def test_with_json_only_results_are_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program that reads the answer would meet a sentence."""
    out = Output(as_json=True)
    out.say("a line")
    out.pairs([("name", "value")])
    out.table(["A"], [["b"]], "none")
    out.progress("working")
    out.result({"id": "\x1b"})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"id": "\x1b"}
    assert "\x1b" not in captured.out
    assert captured.err == "working\n"


def test_why_the_scheduler_was_stopped_moves_no_cursor_and_begins_no_line() -> None:
    """What one admin gave as a reason would hide from the others that everything stands still."""
    said = "\x1b[2Jrelease\u202e\nIDLE; jobs: none"
    status = {
        "state": "PAUSED", "changedBy": "root\x9b", "changedAt": "2026-11-23T21:28:03Z",
        "reason": said, "maxConcurrent": 5,
    }  # fmt: skip
    told = scheduler_state(status)
    assert told.startswith("PAUSED, paused by root\\x9b 2026-11-23 ")
    assert told.endswith(": \\x1b[2Jrelease\\u202e IDLE; jobs: none; jobs:  (at most 5)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (12, "12 s"), (185, "3 min 5 s"), (7_800, "2 h 10 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    """A person would have to count seconds."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("usd", "text"), [(0, "$0"), (0.00421, "$0.0042"), (1.254, "$1.25")])
def test_small_amounts_are_not_rounded_to_nothing(usd: float, text: str) -> None:
    """Work that costs would look free."""
    assert dollars(usd) == text


def test_ages_of_a_clock_ahead_are_not_negative() -> None:
    """Two machines' clocks never agree."""
    now = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    assert age("2026-11-21T08:00:03.000Z", now) == "0 s"
    assert age("2026-11-20T07:00:00.000Z", now) == "1 d"
    assert age(None, now) == ""


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    """A code of a newer server would be swallowed."""
    assert reason("quota_of_the_moon") == "quota of the moon"
    assert remedy("quota_of_the_moon") is None
    assert "model" in reason("model_not_configured")
    assert "ANTHROPIC_API_KEY" in (remedy("model_not_configured") or "")
    assert "TROUPE_ROUNDS_MAX" in (remedy("budget_rounds") or "")
    assert reason("budget_rounds") == "all rounds are used up (budget_rounds)"


@pytest.mark.parametrize(
    ("status", "attempts", "shown"),
    [("pending", 1, True), ("pending", 0, False), ("running", 2, False)],
)
def test_when_a_failed_attempt_is_tried_again_is_said(
    capsys: pytest.CaptureFixture[str], status: str, attempts: int, shown: bool
) -> None:
    """A job that waits five minutes for its next attempt would look forgotten."""
    job = {
        "id": "job_1", "agentType": "qa", "status": status, "attempts": attempts, "maxAttempts": 4,
        "priority": "normal", "queuedAt": "2026-11-21T08:00:00.000Z",
        "notBeforeMs": 1_795_248_300_000, "error": "RuntimeError: no luck",
    }  # fmt: skip
    say_job(Output(as_json=False), job, [])
    out = capsys.readouterr().out
    assert ("not before 2026-11-21" in out) is shown
    assert f"{attempts} of 4" in out
