"""The live view: what is drawn on a terminal, and what is written elsewhere."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest

from actors.commands.following import Line, Picture, Update
from actors.commands.live import PlainView, TerminalView, view
from actors.commands.output import Output

PICTURE = Picture(
    id="issue_1", title="Export [red] drops", status="processing", job_id="job_1",
    percent=35, step="round 2: run_tests", cost_usd=0.0312, tokens=1_200,
)  # fmt: skip
LINE = Line("2026-11-21T08:00:00.000Z", "ran 12 tests\x1b[2J")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard output is a terminal from here on; not in a fixture, capturing would undo it."""
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def test_on_a_terminal_the_state_is_drawn_and_the_log_scrolls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user would stare at nothing while money is spent."""
    terminal = on_a_terminal(monkeypatch)
    with view(Output(as_json=False)) as shown:
        assert isinstance(shown, TerminalView)
        shown.show(Update(PICTURE, (LINE,)))
        shown.show(Update(replace(PICTURE, status="pending", reason="model_not_configured")))
    drawn = terminal.getvalue()
    for part in ("35%", "round 2: run_tests", "$0.0312", "Export [red] drops", "ANTHROPIC_API_KEY"):
        assert part in drawn, part
    assert "ran 12 tests\\x1b[2J" in drawn
    assert "ran 12 tests\x1b[2J" not in drawn, "a log line must not clear the screen"
    assert "\x1b[34m" in drawn or "\x1b[1;34m" in drawn, "in colour"
    assert drawn.rfind("\x1b[?25h") > drawn.rfind("\x1b[?25l") >= 0, "the cursor comes back"


def test_without_colours_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR would be of no effect."""
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    with view(Output(as_json=False)) as shown:
        shown.show(Update(PICTURE, (LINE,)))
    assert "\x1b[34m" not in terminal.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor's shell would be filled with control characters."""
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with view(Output(as_json=False)) as shown:
        assert isinstance(shown, PlainView)


def test_plain_lines_come_only_with_a_change() -> None:
    """A log file would be filled with the same line."""
    said: list[str] = []
    plain = PlainView(said.append)
    for _ in range(3):
        plain.show(Update(PICTURE))
    assert said == [
        "-> issue_1 is processing",
        "    35%  round 2: run_tests  $0.0312, 1,200 tokens",
    ]
    plain.show(Update(replace(PICTURE, percent=40)))
    assert said[2:] == ["    40%  round 2: run_tests  $0.0312, 1,200 tokens"]
    plain.show(
        Update(replace(PICTURE, percent=40, status="pending", reason="model_not_configured"))
    )
    assert "it waits for a model" in said[3]
    assert "ANTHROPIC_API_KEY" in said[4]
    assert len(said) == 5
