"""The commands, typed against true routes and a true saga; agents of the department are played.

The walk with sandbox, git and model is in tests/acceptance.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.cli import main
from actors.commands.http import Api, connect
from tests.desk import HASH, PATCH, Desk, desk


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repositories")
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-C", str(path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return path.resolve()


@pytest.fixture(scope="module")
def here(root: Path) -> Iterator[Desk]:
    with desk(root) as made:
        yield made


class Typed:
    """Types commands; the answer is what a program or a person gets."""

    def __init__(self, here: Desk, root: Path) -> None:
        self.env = {**here.env, "TROUPE_DATA": str(root / "none")}
        self.repository = str(root)

    def __call__(self, *args: str, code: int = 0, token: str | None = None) -> Result:
        env = self.env | ({"TROUPE_TOKEN": token} if token else {})
        result = CliRunner().invoke(main, args, env=env, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def json(self, *args: str, code: int = 0) -> Any:
        result = self(*args, "--json", code=code)
        assert result.stderr == "", "nothing but the answer"
        return json.loads(result.stdout)

    def submit(self, title: str, *args: str, code: int = 0) -> Any:
        return self.json("submit", "--repo", self.repository, "--title", title, *args, code=code)


@pytest.fixture
def troupe(here: Desk, root: Path) -> Typed:
    return Typed(here, root)


def test_an_issue_is_walked_from_submission_to_delivery(troupe: Typed) -> None:
    """The first thing every user does would not work."""
    issue = troupe.submit("Export drops pages", "--wait")
    assert (issue["status"], issue["context"]["repository"]) == ("review", troupe.repository)
    shown = troupe("review", "show", issue["id"]).stdout
    assert HASH in shown
    assert "size: look" in shown
    assert "export.py:1  a comment has odd bytes" in shown
    assert "+pages = -(-lines // 50)  # caf\\udce9 \\x1b[31m" in shown, "nothing is hidden"
    approved = troupe("review", "approve", issue["id"], "--hash", HASH[:12]).stdout
    assert f"approved the change with hash {HASH[:12]}" in approved
    told = troupe("watch", issue["id"]).stdout
    assert f"{issue['id']} is completed." in told
    assert "troupe/1-export" in told
    assert "/data/1.patch" in told
    story = troupe("explain", issue["id"]).stdout
    for part in ("handed in from manual", "ann approved the change", "troupe/1-export", "$0.03"):
        assert part in story


def test_a_watch_ends_at_the_review_with_what_to_type(troupe: Typed) -> None:
    """The user would not know that the work waits for them, nor how to go on."""
    args = ("submit", "--repo", troupe.repository, "--title", "Export, watched", "--watch")
    told = troupe(*args).stdout
    assert "looked at export.py" in told
    assert "ran 12 tests" in told
    assert told.count("ran 12 tests") == 1, "a line is shown once"
    for part in ("troupe review show review_", "troupe review approve", "troupe review reject"):
        assert part in told
    assert "\x1b[" not in told, "no colours and no redrawing in a pipe"


def test_with_json_a_watch_is_one_object_a_line(troupe: Typed) -> None:
    """A program could not follow work."""
    args = ("--title", "Export, read by a program", "--watch", "--json")
    result = troupe("submit", "--repo", troupe.repository, *args)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0]["type"] == "submitted"
    assert {line["type"] for line in lines[1:-1]} <= {"update", "log"}
    assert (lines[-1]["type"], lines[-1]["outcome"]) == ("end", "review")
    assert lines[-1]["reviewId"].startswith("review_")
    assert {"looked at export.py", "ran 12 tests"} <= {line.get("message") for line in lines}


def test_failed_work_ends_with_exit_code_one(troupe: Typed) -> None:
    """A script would take failed work for done."""
    issue = troupe.submit("This one fails", "--wait", code=1)
    assert (issue["status"], issue["reason"]) == ("failed", "work_failed")
    told = troupe("watch", issue["id"], code=1).stdout
    assert f"troupe jobs retry {issue['jobId']}" in told
    assert "the work can't be done" in troupe("explain", issue["id"]).stdout


def test_a_wait_that_takes_too_long_says_that_the_work_goes_on(troupe: Typed) -> None:
    """The user would believe that the issue was lost."""
    args = ("--title", "Needs a model", "--wait", "--timeout", "1")
    result = troupe("submit", "--repo", troupe.repository, *args, code=5)
    assert "it goes on" in result.stderr
    [issue] = [i for i in troupe.json("issues") if i["title"] == "Needs a model"]
    story = troupe("explain", issue["id"]).stdout
    assert "it waits for a model" in story
    assert "ANTHROPIC_API_KEY" in story


def test_endless_work_can_be_cancelled(troupe: Typed) -> None:
    """Only killing Troupe would stop it."""
    issue = troupe.submit("An endless one")
    assert troupe.json("cancel", issue["id"])["accepted"]
    ended = troupe("watch", issue["id"], code=1).stdout
    assert "it was cancelled" in ended
    again = troupe("cancel", issue["id"], code=4)
    assert "The issue is failed." in again.stderr


def test_triages_question_is_answered_by_a_command(troupe: Typed) -> None:
    """An issue that triage can't place could only be helped by hand."""
    issue = troupe.submit("I am unsure", "--wait")
    assert (issue["status"], issue["reason"]) == ("review", "no_signal")
    assert "issues tell" in troupe("explain", issue["id"]).stdout
    troupe("issues", "tell", issue["id"], "fix the export", "--agent", "code")
    assert "waits for your review" in troupe("watch", issue["id"]).stdout


def test_a_change_that_was_replaced_is_not_approved(troupe: Typed) -> None:
    """A person would approve what they have not seen."""
    issue = troupe.submit("Export, approved blindly", "--wait")
    wrong = troupe("review", "approve", issue["id"], "--hash", "0" * 12, code=1)
    assert f"now has the hash {HASH[:12]}" in wrong.stderr
    assert troupe.json("review", "show", issue["id"])["status"] == "pending"
    troupe("review", "reject", issue["id"])
    assert "a person rejected the change" in troupe("watch", issue["id"], code=1).stdout


def test_jobs_are_read_and_their_change_is_a_patch(troupe: Typed) -> None:
    """The work of a job could not be looked at or applied."""
    issue = troupe.submit("Export, read", "--wait")
    listed = troupe.json("jobs", "list", "--issue", issue["id"])
    code = next(job for job in listed if job["agentType"] == "code")
    shown = troupe.json("jobs", "show", code["id"])
    assert [artifact["sha256"] for artifact in shown["artifacts"]] == [HASH]
    assert troupe("jobs", "diff", code["id"]).stdout_bytes == PATCH
    assert "ran 12 tests" in troupe("jobs", "logs", code["id"]).stdout
    assert "Rounded up." in troupe("jobs", "show", code["id"]).stdout
    again = troupe("jobs", "retry", code["id"], code=4)
    assert "HTTP 409" in again.stderr


def test_agents_are_spoken_to(troupe: Typed) -> None:
    """An agent of one's own could not be tried from the shell."""
    content = '{"by": 2}'
    args = ("agents", "send", "counter:a", "increment", content, "--wait", "10")
    assert troupe(*args).stdout == "2\n"
    assert troupe.json(*args)["reply"] == 4
    rows = troupe.json("agents", "messages", "counter:a")
    assert [row["message"]["content"] for row in rows] == [{"by": 2}] * 2
    assert troupe.json("agents", "show", "counter:a")["kind"] == "counter"
    assert "counter:a" in troupe("agents", "list", "--kind", "counter").stdout
    waited = troupe("agents", "send", "counter:a", "unknown", "--wait", "0.2", code=5)
    assert "No answer within 0.2 s: troupe agents messages counter:a" in waited.stdout


@pytest.mark.parametrize("content", ["{", '{"by": NaN}', "1e999", '"\\ud800"', "[" * 100_000])
def test_what_json_can_not_say_is_a_usage_error(troupe: Typed, content: str) -> None:
    """The request could not be written: a traceback was the answer."""
    assert "CONTENT" in troupe("agents", "send", "counter:a", "x", content, code=2).stderr
    args = ("schedule", "set", "counter:a", "--every", "PT1H", "--payload", content)
    assert "--payload" in troupe(*args, code=2).stderr


@pytest.mark.parametrize(
    "args",
    [
        ("schedule", "pause", "counter:a", "--reason", "a\udcff"),
        ("explain", "job_\udcff"),
        ("agents", "send", "a:\udcff", "x"),
    ],
)
def test_bytes_that_are_no_text_are_a_usage_error(troupe: Typed, args: tuple[str, ...]) -> None:
    """What the shell hands over need not be UTF-8, and no request can carry it."""
    assert "is no UTF-8" in troupe(*args, code=2).stderr


def test_a_bounded_watch_of_everything_ends_in_time(troupe: Typed) -> None:
    """A script that waits for a while would wait for ever."""
    assert "0.3 s" in troupe("watch", "--all", "--timeout", "0.3", code=5).stderr


async def test_the_true_stream_goes_on_after_a_cursor(troupe: Typed, here: Desk) -> None:
    """A watch whose connection broke would be refused, or begin at the present."""
    async with connect(here.url, here.token, local=True) as http:
        api = Api(http)
        async with aclosing(api.events(["monitoring"])) as events:
            begin = await anext(events)
        issue = await asyncio.to_thread(troupe.submit, "Export, resumed")
        seen = []
        async with aclosing(api.events([f"issue:{issue['id']}"], begin.cursor)) as events:
            async for event in events:
                seen.append(event)
                if event.name == "issue:review":
                    break
        names = [event.name for event in seen]
        assert names[:2] == ["opened", "issue:created"]
        middle = names.index("job:completed")
        async with aclosing(api.events([f"issue:{issue['id']}"], seen[middle].cursor)) as events:
            await anext(events)
            assert (await anext(events)).cursor == seen[middle + 1].cursor


def test_status_says_how_it_is(troupe: Typed) -> None:
    """An operator would have to read health as JSON."""
    told = troupe("status").stdout
    assert "memory, survives none" in told
    assert re.search(r"accepted +\d+ messages, \d+ of them pending; \d+ events told", told)
    assert "(at most 5)" in told
    assert troupe.json("status")["scheduler"]["maxConcurrent"] == 5


def test_a_refusal_of_the_server_is_exit_code_four(
    troupe: Typed, here: Desk, tmp_path: Path
) -> None:
    """A script could not tell a refusal from a stopped Troupe."""
    assert "HTTP 404" in troupe("issues", "show", "issue_none", code=4).stderr
    refused = troupe("cancel", "issue_none", code=4, token=here.viewer)
    assert "role" in refused.stderr
    assert "TROUPE_TOKEN" in troupe("issues", code=4, token="troupe_wrong").stderr
    problem = json.loads(troupe("jobs", "show", "job_none", "--json", code=4).stderr)
    assert problem["error"]["exitCode"] == 4
    assert problem["error"]["problem"]["code"] == "not_found"


def test_a_repository_outside_the_roots_is_refused_with_the_setting(
    troupe: Typed, tmp_path: Path
) -> None:
    """The user would not learn what the operator has to allow."""
    subprocess.run(["git", "clone", "-q", troupe.repository, tmp_path / "copy"], check=True)
    args = ("submit", "--repo", str(tmp_path / "copy"), "--title", "Elsewhere")
    assert "TROUPE_REPOSITORY_ROOTS" in troupe(*args, code=4).stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--title", " "), "title is empty"),
        (("--title", "x" * 201), "more than 200"),
        (("--title", "x", "--description", "a", "-f", "-"), "not both"),
        (("--title", "x", "--timeout", "3"), "--watch or --wait"),
        (("--title", "x", "--base-ref", "nowhere"), "no branch, tag or commit nowhere"),
        (("--title", "x", "--repo", "/nowhere"), "There is no /nowhere"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_it_is_sent(
    troupe: Typed, args: tuple[str, ...], sentence: str
) -> None:
    """The user would wait for the server to say it in its own words."""
    before = len(troupe.json("issues", "--limit", "1000"))
    assert sentence in troupe("submit", "--repo", troupe.repository, *args, code=2).stderr
    assert len(troupe.json("issues", "--limit", "1000")) == before


def test_a_description_is_read_from_a_file(troupe: Typed, tmp_path: Path) -> None:
    """Long descriptions would have to be quoted for the shell."""
    (tmp_path / "issue.md").write_text("Über 50 Seiten\n")
    issue = troupe.submit("Described", "-f", str(tmp_path / "issue.md"), "--wait")
    assert issue["description"] == "Über 50 Seiten\n"
    (tmp_path / "issue.md").write_bytes(b"\xff\xfe")
    args = ("submit", "--repo", troupe.repository, "--title", "x", "-f", str(tmp_path / "issue.md"))
    assert "not text in UTF-8" in troupe(*args, code=2).stderr


def test_the_same_external_id_is_one_issue(troupe: Typed) -> None:
    """A script that is run twice would have its work done twice."""
    first = troupe.submit("Once", "--external-id", "ticket-7")
    assert troupe.submit("Once", "--external-id", "ticket-7")["id"] == first["id"]


def test_keys_are_made_on_the_machine_only(troupe: Typed) -> None:
    """A key could be asked for from elsewhere."""
    assert "on the machine" in troupe("keys", "list", code=2).stderr


def test_a_stopped_troupe_is_exit_code_three(tmp_path: Path) -> None:
    """A script could not start it and try again."""
    args = ["issues", "--data", str(tmp_path)]
    result = CliRunner().invoke(main, args, env={"TROUPE_URL": ""})
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "troupe up" in result.stderr
