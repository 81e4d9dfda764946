"""`troupe schedule`, typed against true routes and a true scheduler."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from actors.cli import main
from actors.commands import ledger, schedules
from actors.commands.failures import CommandError
from actors.commands.http import Api, connect
from tests.desk import Desk, desk

AGENT = "review:acme.api"
"""Its kind does any job there."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk(tmp_path_factory.mktemp("data")) as made:
        yield made


def typed(here: Desk, *args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main, ["schedule", *args], env=here.env, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout or result.stderr


def test_a_schedule_is_set_shown_paused_triggered_audited_and_deleted(here: Desk) -> None:
    """An operator would need curl."""
    said = typed(here, "set", AGENT, "--cron", "0 9 * * 1-5", "--tz", "Europe/Berlin")
    assert "NEXT (Europe/Berlin)" in said
    assert "latest, of the past 1 d" in said
    view = json.loads(typed(here, "show", AGENT, "--json"))
    assert (view["cron"], len(view["next"])) == ("0 9 * * 1-5", 5)
    assert AGENT in typed(here, "list")
    assert "Queued: job_" in typed(here, "trigger", AGENT, "--reason", "look")
    assert "paused" in typed(here, "pause", AGENT, "--drain", "--reason", "release")
    assert "release" in typed(here, "show", AGENT)
    typed(here, "set", AGENT, "--cron", "0 9 * * 1-5", "--tz", "Europe/Berlin")
    assert json.loads(typed(here, "show", AGENT, "--json"))["status"] == "paused"
    assert typed(here, "resume", AGENT)
    [one] = json.loads(typed(here, "history", AGENT, "--json"))["items"]
    assert one["cause"] == "manual"
    told = CliRunner().invoke(main, ["explain", one["id"]], env=here.env)
    assert "ann had it run" in told.stdout
    audited = json.loads(typed(here, "audit", AGENT, "--json"))
    assert (audited["asked"], audited["unaccounted"], audited["due"]) == (1, 0, 0)
    typed(here, "delete", AGENT)
    typed(here, "show", AGENT, code=4)
    assert json.loads(typed(here, "audit", AGENT, "--json"))["strange"] == 0


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("30 minutes", "every 30 minutes"),
        ("day", "every day"),
        ("every 2 hours", "every 2 hours"),
        ("PT30M", "PT30M"),
        ("R3/2199-01-01T09:00:00Z/P1D", "R3/2199-01-01T09:00:00Z/P1D"),
    ],
)
def test_what_is_said_after_every_need_not_say_it_again(here: Desk, said: str, meant: str) -> None:
    """`--every "30 minutes"` was read as a cron expression of two fields."""
    view = json.loads(typed(here, "set", AGENT, "--name", "span", "--every", said, "--json"))
    assert view["interval"] == meant
    assert "bad_interval" in typed(here, "set", AGENT, "--every", "0 9 * * *", code=2)


def test_what_was_due_is_in_the_audit(here: Desk) -> None:
    """The sums would be equal because both are nothing."""
    typed(here, "set", AGENT, "--name", "often", "--every", "every 1 second", "--overlap", "allow")
    found: dict[str, Any] = {}
    while found.get("due", 0) < 2:
        found = json.loads(typed(here, "audit", AGENT, "--name", "often", "--json"))
    assert found["due"] == found["sum"] == sum(found["outcomes"].values()) + found["waiting"]
    assert found["outcomes"]["fired"]
    assert "each with exactly one outcome" in typed(here, "audit", AGENT, "--name", "often")
    typed(here, "delete", AGENT, "--name", "often")


class Slow(Api):
    """Has the ledger go on between the first answer and the next question."""

    async def get(self, path: str, **params: Any) -> Any:
        answer = await super().get(path, **params)
        if path.endswith("/schedule"):
            while (await super().get(path, **params))["accountedUntil"] == answer["accountedUntil"]:
                pass
        return answer


def test_a_range_that_grows_while_it_is_audited_is_no_mistake(here: Desk) -> None:
    """An audit of a schedule that is paused would fail now and then."""
    agent = "review:acme.grows"
    typed(here, "set", agent, "--every", "1 second")
    typed(here, "pause", agent, "--drain")
    while json.loads(typed(here, "show", agent, "--json")).get("lastOutcome") != "skipped_paused":
        pass

    async def audit() -> tuple[dict[str, Any], list[str]]:
        async with connect(here.url, here.token, local=True) as http:
            since = datetime.now(UTC) - timedelta(days=1)
            return await ledger.audited(Slow(http), agent, "default", since)

    figure, notes = asyncio.run(audit())
    typed(here, "delete", agent)
    assert notes == []
    assert figure["due"] == figure["sum"] > 1


def test_an_audit_of_more_than_it_reads_finds_no_mistakes(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Due times of revisions and pages that were not read would be told as mistakes."""
    agent = "review:acme.much"
    for priority in ("low", "high"):
        typed(here, "set", agent, "--event", "never", "--priority", priority)
    for _ in range(2):
        typed(here, "trigger", agent, "--json")
        while json.loads(typed(here, "show", agent, "--json"))["running"]:
            pass
    for bound, what in (("REVISIONS_MAX", "revisions"), ("OCCURRENCES_MAX", "outcomes")):
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "PAGE", 1)
            patched.setattr(ledger, bound, 1)
            assert f"It has more than 1 {what}" in typed(here, "audit", agent, code=1)
            patched.setattr(ledger, bound, 2)
            assert json.loads(typed(here, "audit", agent, "--json"))["strange"] == 0


def test_an_expression_that_can_not_be_meant_is_refused(here: Desk) -> None:
    """A typo would be a schedule."""
    said = typed(here, "set", AGENT, "--cron", "0 25 * * *", code=2)
    assert "(out_of_range at position 2)" in said
    assert said.endswith("0 25 * * *\n  ^\n")
    wrong = ["set", AGENT, "--every", "PT1H", "--tz", "Europe/Berln", "--json"]
    told = json.loads(typed(here, *wrong, code=2))["error"]
    assert (told["exitCode"], told["code"], told["position"]) == (2, "unknown_zone", 0)
    assert "did you mean Europe/Berlin" in told["message"]
    bounds = ["--start", "2027-01-01", "--end", "2026-01-01"]
    assert "bad_bounds" in typed(here, "set", AGENT, "--every", "PT1H", *bounds, code=2)
    assert "bad_bounds" in typed(here, "next", "PT1H", *bounds, code=2)
    for ways in ([], ["--cron", "@daily", "--every", "PT1H"]):
        assert "exactly one way" in typed(here, "set", AGENT, *ways, code=2)
    assert "kind:key" in typed(here, "set", "nobody", "--cron", "@daily", code=2)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--jitter", "-1", "0<=x<=900"),
        ("--jitter", "9" * 30, "0<=x<=900"),
        ("--window", "9" * 30, "0<=x<=31622400"),
        ("--cap", "101", "1<=x<=100"),
        ("--max-attempts", "0", "1<=x<=20"),
        ("--budget", "nan", "nan is no amount"),
        ("--budget", "1e999", "1e999 is no amount"),
        ("--budget", "-1", "budgetUsdPerDay: Input should be greater than 0"),
        ("--limit-key", "", "bad_text"),
        ("--payload", '{"a": 1, "a": 2}', "a name comes twice"),
        ("--payload", '{"a": -9223372036854775808}', "a number is out of range"),
        ("--payload", f'{{"a": {"1" * 5_000}}}', "a number is out of range"),
    ],
    ids=lambda value: value[:24],
)
def test_a_value_that_can_not_be_meant_is_refused_by_its_option(
    here: Desk, option: str, value: str, said: str
) -> None:
    """It would end in a traceback, in `the body is no JSON`, or as another value."""
    words = ["set", "review:acme.none", "--every", "PT1H", option, value]
    assert said in typed(here, *words, code=2)
    error = json.loads(typed(here, *words, "--json", code=2))["error"]
    assert error["exitCode"] == 2
    assert said in error["message"]
    typed(here, "show", "review:acme.none", code=4)


def test_a_history_without_an_outcome_says_so(here: Desk) -> None:
    """`Nothing was due yet` would be said of a schedule that has run."""
    agent = "review:acme.history"
    typed(here, "set", agent, "--every", "PT1H")
    assert "Nothing was due yet." in typed(here, "history", agent)
    typed(here, "trigger", agent)
    assert "No due time of it is missed." in typed(here, "history", agent, "--outcome", "missed")


def test_an_event_after_its_end_is_told_to_nobody(here: Desk) -> None:
    """`Due when it is told` would be said of a schedule that no event starts any more."""
    said = typed(here, "set", "review:acme.past", "--event", "push", "--end", "2020-01-01")
    assert "status    ended" in said
    assert said.endswith("Nothing more is due.\n")


def test_a_list_that_is_not_whole_says_so(here: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that is there would be missed by who looks for it, and by a script."""
    agent = "review:acme.many"
    for name in ("a", "b", "c"):
        typed(here, "set", agent, "--name", name, "--cron", "@daily")
    monkeypatch.setattr(schedules, "LISTED_MAX", 2)
    for form in ([], ["--json"]):
        words = ["schedule", "list", "--agent", agent, *form]
        told = CliRunner().invoke(main, words, env=here.env)
        assert told.stderr == "There are more than these 2; of one agent: --agent\n"
        assert told.stdout.count(agent) == 2
    typed(here, "delete", agent, "--name", "c")
    told = CliRunner().invoke(main, ["schedule", "list", "--agent", agent], env=here.env)
    assert (told.stdout.count(agent), told.stderr) == (2, "")


def test_a_text_on_which_crons_differ_is_set_with_its_dialect(here: Desk) -> None:
    """The answer would name a way out that the command does not have."""
    agent = ["set", "review:acme.dialect", "--cron", "0 0 */2 * 1"]
    assert "ambiguous_day_fields at position 4" in typed(here, *agent, code=2)
    assert "dialect" in typed(here, *agent, "--dialect", "debian")


def test_a_schedule_that_is_not_there_is_named_and_the_way_to_those_that_are(here: Desk) -> None:
    """`There is no such thing` would be all there is to go by."""
    for verb in ("show", "pause", "resume", "trigger", "history", "audit"):
        said = typed(here, verb, "review:none", "--name", "nightly", code=4)
        assert "review:none has no schedule `nightly`." in said
        assert "troupe schedule list" in said


def test_a_schedule_is_deleted_twice_and_the_second_time_it_is_said(here: Desk) -> None:
    """A script that is run again would fail over what it wants; a typing error would go unseen."""
    typed(here, "set", "review:acme.twice", "--every", "PT1H")
    delete = ["schedule", "delete", "review:acme.twice"]
    told = [CliRunner().invoke(main, delete, env=here.env) for _ in range(2)]
    assert [one.exit_code for one in told] == [0, 0]
    assert told[0].stdout == "review:acme.twice is off the schedule.\n"
    assert told[1].stdout == "review:acme.twice has no schedule `default`.\n"
    assert "troupe schedule list" in told[1].stderr
    again = json.loads(typed(here, "delete", "review:acme.twice", "--json"))
    assert again == {"agentId": "review:acme.twice", "name": "default", "deleted": False}


def test_a_schedule_shows_all_that_was_asked_for_and_nothing_it_will_not_do(here: Desk) -> None:
    """A paused schedule would look as if it ran, and half of an order would not be seen."""
    agent = "review:acme.whole"
    said = typed(
        here, "set", agent, "--every", "PT1H", "--start", "2026-01-01", "--end", "2199-01-01",
        "--payload", '{"depth": 2}', "--repository", "https://github.com/acme/api.git",
        "--only-if-changed", "--budget", "2.5", "--limit-key", "k", "--max-attempts", "2",
    )  # fmt: skip
    for part in ("2026-01-01", "2199-01-01", '{"depth": 2}', "https://github.com/acme/api.git",
                 "the repository has changed", "$2.50 a day", "limit key   k", "attempts    2",
                 "NEXT (UTC)", "jitter      0 s"):  # fmt: skip
        assert part in said, part
    assert "+00:00" not in said
    assert re.search(r"changed +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) by", said)
    said = typed(here, "pause", agent)
    assert "NEXT" not in said
    assert f"troupe schedule resume {agent}" in said
    typed(here, "set", agent, "--name", "push", "--event", "push")
    assert "told of `push`" in typed(here, "show", agent, "--name", "push")


def test_why_a_job_waits_for_its_agent_is_said_and_what_to_do(here: Desk) -> None:
    """A queue would stand still after two failures, and nothing would say why."""

    def troupe(*args: str) -> str:
        result = CliRunner().invoke(main, args, env=here.env, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    agent = "code:acme.failing"
    payload = json.dumps({"issue": {"title": "fails"}})
    for name in ("one", "two"):
        typed(here, "set", agent, "--name", name, "--event", "never", "--payload", payload)
        typed(here, "trigger", agent, "--name", name)
    while "two of its jobs in a row have failed" not in (told := troupe("agents", "show", agent)):
        pass
    assert f"troupe agents resume {agent}" in told
    typed(here, "set", agent, "--name", "three", "--event", "never")
    job = json.loads(typed(here, "trigger", agent, "--name", "three", "--json"))["jobId"]
    for said in (troupe("jobs", "show", job), troupe("explain", job)):
        assert "two jobs of its agent in a row have failed" in said
        assert f"troupe agents resume {agent}" in said
    failed = json.loads(troupe("agents", "sessions", agent, "--status", "failed", "--json"))
    assert len(failed) == 2
    assert all("the work can't be done" in one["error"] for one in failed)
    assert failed[0]["jobId"] in troupe("agents", "sessions", agent)
    assert agent in troupe("jobs", "list")
    assert "resume is accepted" in troupe("agents", "resume", agent, "--reason", "mended")
    assert "what to do" not in troupe("agents", "show", agent)


def test_the_scheduler_as_a_whole_is_stopped_and_goes_on(here: Desk) -> None:
    """The one thing an operator needs in a hurry would need curl."""

    def scheduler(*args: str, code: int = 0, token: str = "") -> str:
        env = here.env | {"TROUPE_TOKEN": token or here.root}
        result = CliRunner().invoke(main, ["scheduler", *args], env=env, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout or result.stderr

    said = scheduler("pause", "--reason", "release 7")
    assert re.match(r"PAUSED, paused by root 20.*: release 7; jobs: \d+ running", said)
    assert "PAUSED, drained by root" in scheduler("drain")
    assert json.loads(scheduler("--json"))["draining"]
    typed(here, "set", "review:acme.waits", "--event", "never")
    job = json.loads(typed(here, "trigger", "review:acme.waits", "--json"))["jobId"]
    for args in (("show", "review:acme.waits"), ("list",)):
        told = CliRunner().invoke(main, ["schedule", *args], env=here.env).stderr
        assert "what is due is skipped, until: troupe scheduler resume" in told
    shown = CliRunner().invoke(main, ["jobs", "show", job], env=here.env).stdout
    assert "troupe scheduler resume" in shown
    assert "not_yours" in scheduler("resume", "--json", code=4, token=here.token)
    assert "by root" not in scheduler("resume", "--reason", "done")


def test_a_run_under_way_is_told_with_what_can_be_done(here: Desk) -> None:
    """The refusal would name a field of JSON, or the way out of another refusal."""
    agent = "code:acme.endless"
    payload = json.dumps({"issue": {"title": "endless"}})
    typed(here, "set", agent, "--event", "never", "--payload", payload, "--priority", "high")
    job = json.loads(typed(here, "trigger", agent, "--json"))["jobId"]
    while json.loads(typed(here, "show", agent, "--json"))["status"] != "executing" or (
        CliRunner().invoke(main, ["jobs", "show", job], env=here.env).stdout.count("running") == 0
    ):
        pass
    typed(here, "set", agent, "--name", "next", "--event", "never", "--payload", payload)
    behind = json.loads(typed(here, "trigger", agent, "--name", "next", "--json"))["jobId"]
    for args in (("jobs", "show", behind), ("explain", behind)):
        told = CliRunner().invoke(main, args, env=here.env).stdout
        assert "its agent does one job at a time, and another one runs" in told
    about = ["agents", "show", agent, "--json"]
    while (shown := CliRunner().invoke(main, about, env=here.env)).exit_code:
        pass  # an agent that has never run is entered with what its run writes first
    found = json.loads(shown.stdout)
    assert (found["status"], found["jobId"]) == ("running", behind)
    CliRunner().invoke(main, ["cancel", behind], env=here.env)
    assert f"troupe schedule pause {agent} --drain" in typed(here, "pause", agent, code=4)
    assert "--drain" not in typed(here, "trigger", agent, code=4)
    assert "paused" in typed(here, "pause", agent, "--drain")
    CliRunner().invoke(main, ["cancel", job], env=here.env)


def test_a_revision_that_means_nothing_any_more_ends_an_audit_with_a_word() -> None:
    """An expression that was taken once and is ambiguous now would end it in a traceback."""
    revision = {
        "agentId": AGENT, "name": "default", "revision": 3, "after": "2026-01-01T00:00:00Z",
        "schedule": {"cron": "0 0 */1 * 1"},
    }  # fmt: skip
    with pytest.raises(CommandError, match=r"Revision 3 can't be computed .*ambiguous_day_fields"):
        ledger._revision(revision)
