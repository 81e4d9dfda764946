"""docs/schedules.md and `troupe schedule next` say what the code does."""

from __future__ import annotations

import ast
import json
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result

from actors.cli import main
from runtime.errors import InvalidScheduleError
from runtime.schedule.instants import local_text_of
from runtime.schedule.plan import parse
from runtime.schedule.record import Cause, Outcome
from runtime.schedule.spec import ScheduleBody
from runtime.schedule.view import OccurrenceView, ShownStatus

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "runtime"
PAGE = (ROOT / "docs" / "schedules.md").read_text()
NAMES = re.compile(r"`(\w+)`")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    table = PAGE.partition(f"## {heading}\n")[2].partition("\n| ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in
            table.splitlines()[2:]]  # fmt: skip


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["schedule", "next", *words])


CADENCES = rows("Five cadences")


@pytest.mark.parametrize("row", CADENCES, ids=lambda row: row[0].partition(",")[0])
def test_a_cadence_is_due_when_the_page_says(row: list[str]) -> None:
    """Who copies an example would get another schedule than is promised."""
    _, text, after, due = row
    plan = parse(text.strip("`"), "America/New_York")
    expected = due.split(", ")
    found = plan.due_between(at(after), at("2026-04-01T00:00-04:00"), len(expected))
    assert [local_text_of(one, plan.zone).replace(":00-0", "-0") for one in found] == expected


def test_the_five_cadences_are_there() -> None:
    """The examples asked for would be missing, and no test would notice."""
    assert [row[1].strip("`") for row in CADENCES] == [
        "0 9 * * *", "0 */6 * * *", "*/30 9-17 * * 1-5", "0 2 * * 0", "0 8 * * 1-5",
    ]  # fmt: skip


READERS = ("plan", "cron", "cronfields", "interval", "instants", "zones")


def codes_raised() -> set[str]:
    """First arguments of every InvalidScheduleError that reading a text can make."""
    found = set()
    for name in READERS:
        source = (ROOT / "runtime" / "schedule" / f"{name}.py").read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "InvalidScheduleError":
                found |= set(re.findall(r"'([a-z_]+)'", ast.unparse(node.args[0])))
    return found


def test_every_code_is_on_the_page_and_every_example_has_it() -> None:
    """A program would meet a code that nobody has described."""
    listed = rows("What is refused")
    assert {row[0].strip("`") for row in listed} == codes_raised()
    for code, examples, _ in listed:
        for example in re.findall(r"`([^`]+)`", examples):
            place = "Europe/Berlin" if "in Europe/Berlin" in examples else "UTC"
            text, zone = ("@daily", example) if "zone" in code else (example, place)
            with pytest.raises(InvalidScheduleError) as caught:
                parse(text, zone)
            assert f"`{caught.value.code}`" == code


def test_every_text_on_the_page_can_be_read() -> None:
    """The page would teach texts that are refused."""
    for text in re.findall(r"`([^`]+)`", " ".join(row[0] for row in rows("Intervals"))):
        assert parse(text).kind == "interval"
    aliases = next(row for row in rows("Cron") if "@hourly" in row[0])
    for alias in re.findall(r"`(@\w+)`", aliases[0]):
        assert parse(alias).kind == "cron"
    for text in re.findall(r"`([^`]+)`", PAGE.partition("## Once\n")[2].partition("without")[0]):
        assert parse(text).kind == "once"


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_field_of_a_schedule_is_on_the_page() -> None:
    """Who reads the page would not learn what can be asked for, or ask for what is refused."""
    table = [name for row in rows("Schedules of agents") for name in NAMES.findall(row[0])]
    assert sorted(table) == sorted(one.alias for one in ScheduleBody.model_fields.values())


def test_every_status_outcome_and_member_of_a_due_time_is_on_the_page() -> None:
    """A program would meet a word that nobody has explained."""
    page = section("Schedules of agents")
    named = set(NAMES.findall(page))
    assert set(get_args(ShownStatus)) | set(get_args(Cause)) <= named
    outcomes = page.partition("\n| outcome | meaning |\n")[2].partition("\n\n")[0]
    table = re.findall(r"^\| `(\w+)` \|", outcomes, re.MULTILINE)
    assert table == [outcome.value for outcome in Outcome]
    assert reasons_given() <= set(NAMES.findall(outcomes))
    which = {"id", "scheduleId", "agentId", "name", "revision", "outcome"}
    told = {str(one.alias) for one in OccurrenceView.model_fields.values()}
    assert told - which <= named


def reasons_given() -> set[str]:
    """Every reason that a due time is ended with, and whatever can hold a schedule."""
    found = {"paused", "error", "scheduler_paused"}
    for path in (*RUNTIME.glob("plans/*.py"), RUNTIME / "schedule" / "policy.py"):
        found |= set(re.findall(r'Outcome\.\w+, "(\w+)"', path.read_text()))
    return found


def test_the_example_on_the_page_is_what_the_command_prints() -> None:
    """The first thing a reader tries would look different."""
    shown = PAGE.partition("```\n$ troupe schedule next ")[2].partition("\n```")[0]
    words, _, output = shown.partition("\n")
    assert run(*shlex.split(words)).output.strip() == output


def test_json_is_one_object_and_needs_no_running_troupe(tmp_path: Path) -> None:
    """A program could not ask before anything is started."""
    result = run("30 1 * * *", "--tz", "Europe/London", "--after", "2027-03-27T12:00:00+00:00",
                 "-n", "2", "--json", "--data", str(tmp_path / "none"))  # fmt: skip
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "expr": "30 1 * * *",
        "tz": "Europe/London",
        "next": ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"],
    }


@pytest.mark.parametrize(
    ("words", "code", "position"),
    [
        (["0 0 */2 * 1"], "ambiguous_day_fields", 4),
        (["0 61 * * *"], "out_of_range", 2),
        (["* * * * *", "--tz", "EST"], "ambiguous_zone", 0),
        (["* * * * *", "--tz", "Factory"], "unknown_zone", 0),
        (["* * * * *", "--after", "yesterday"], "bad_instant", 0),
        (["* * * * *", "--after", ""], "bad_instant", 0),
        (["* * * * *", "--start", ""], "bad_instant", 0),
        (["* * * * *", "--end", ""], "bad_instant", 0),
        (["* * * * *", "--tz", "Europe/Berlin", "--end", "2026-10-25T02:30"], "ambiguous_time", 0),
        (["\x1b[2J * * * *"], "bad_value", 0),
        (["-1 * * * *"], "bad_value", 0),
        (["-1 * * * *", "-n", "3"], "bad_value", 0),
        (["-n * * * *"], "bad_value", 0),
        ([""], "wrong_field_count", 0),
    ],
)
def test_a_wrong_text_ends_with_2_its_code_and_its_place(
    words: list[str], code: str, position: int
) -> None:
    """A script could not tell what to mend, or would go on."""
    result = run(*words, "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert (error["exitCode"], error["code"], error["position"]) == (2, code, position)
    plain = run(*words)
    assert plain.exit_code == 2
    assert f"({code} at position {position})" in plain.stderr
    assert "\x1b" not in plain.stderr


def test_the_command_answers_every_vector() -> None:
    """The command would say another time than the library, or not take a text at all."""
    vectors = json.loads((ROOT / "runtime" / "verify" / "cron_vectors.json").read_text())
    for one in vectors["valid"]:
        count = str(len(one["expect_utc"]))
        words = [one["expr"], "--tz", one["tz"], "--after", one["after"], "-n", count]
        found = json.loads(run(*words, "--json").stdout)["next"]
        assert found == [f"{text[:-1]}:00Z" for text in one["expect_utc"]]
    for one in vectors["invalid"]:
        result = run(one["expr"], "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert json.loads(result.stderr)["error"]["code"] == one["error"]


def test_the_place_is_shown_below_the_text() -> None:
    """A person would have to count characters."""
    lines = run("0 0 * * 1-5,SAT-MON").stderr.splitlines()
    assert lines[-2:] == ["0 0 * * 1-5,SAT-MON", "            ^"]


@pytest.mark.parametrize("words", [["@daily", "-n", "-1"], ["-n", "-1", "@daily", "--json"]])
def test_a_number_below_zero_belongs_to_its_option(words: list[str]) -> None:
    """Who mistypes a number would be told of an option that nobody has given."""
    result = run(*words)
    assert result.exit_code == 2
    assert "Invalid value for '-n': -1 is not in the range" in result.stderr


def test_an_empty_text_has_no_place_to_show() -> None:
    """An arrow would point at an empty line."""
    assert run("@daily", "--after", "").stderr.splitlines()[-1].startswith("Error: ")


def test_bounds_end_the_list() -> None:
    """A list with an end would be filled with what is not due."""
    words = ["P1D", "--after", "2026-01-01T00:00Z", "--start", "2026-01-02T12:00Z"]
    result = run(*words, "--end", "2026-01-03T12:00Z", "--json")
    assert json.loads(result.stdout)["next"] == ["2026-01-02T12:00:00Z", "2026-01-03T12:00:00Z"]
    never = run("2026-01-01T00:00Z", "--after", "2026-01-01T00:00Z")
    assert never.output.strip() == "Never again."
