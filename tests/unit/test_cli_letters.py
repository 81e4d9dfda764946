"""`troupe letters`, typed against true routes, a true scheduler and true hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from actors.cli import main
from tests.desk import Desk, desk

AGENT = "code:acme.given-up"
_NUMBERS = count()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk(tmp_path_factory.mktemp("data")) as made:
        yield made


def troupe(here: Desk, *args: str, code: int = 0, stdin: str | None = None) -> str:
    result = CliRunner().invoke(main, args, env=here.env, input=stdin, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout or result.stderr


def read(here: Desk, *args: str, stdin: str | None = None) -> Any:
    return json.loads(troupe(here, *args, "--json", stdin=stdin))


def dead_job(here: Desk) -> str:
    """Id of a job that has failed for good."""
    payload = json.dumps({"issue": {"title": "fails"}})
    named = ("--name", f"n{next(_NUMBERS)}")  # one whose job has failed is in ERROR
    troupe(here, "schedule", "set", AGENT, *named, "--event", "never", "--payload", payload)
    job: str = read(here, "schedule", "trigger", AGENT, *named)["jobId"]
    while not any(letter.get("jobId") == job for letter in read(here, "letters")):
        pass
    troupe(here, "agents", "resume", AGENT)
    return job


def test_a_job_that_was_given_up_is_listed_shown_and_delivered_with_another_payload(
    here: Desk, tmp_path: Path
) -> None:
    """An operator would need curl, and the base64 of a key."""
    job = dead_job(here)
    said = troupe(here, "letters", "list", "--agent", AGENT)
    assert job in said and "the work can't be done" in said
    said = troupe(here, "letters", "show", job)
    assert f"troupe letters redeliver {job}" in said
    assert '"title": "fails"' in said
    payload = tmp_path / "payload.json"
    payload.write_text(json.dumps({"issue": {"title": "Export drops pages"}}))
    again = read(here, "letters", "redeliver", job, "--payload", str(payload))["jobId"]
    assert again != job
    while read(here, "jobs", "show", again)["status"] != "completed":
        pass
    assert "There is no dead letter of" in troupe(here, "letters", "redeliver", job, code=4)


def test_a_job_is_tried_again_as_it_was(here: Desk) -> None:
    """Without a payload it would be another job, without what was done already."""
    job = dead_job(here)
    assert f"Queued again: {job}. " in troupe(here, "letters", "redeliver", job)


def test_a_message_is_delivered_again_with_what_standard_input_says(here: Desk) -> None:
    """What is computed would need a file, and a message could be mended by HTTP alone."""
    sent = read(here, "agents", "send", "ghost:a", "hello", '{"n": 1}')["messageId"]
    while not read(here, "letters", "list", "--agent", "ghost:a"):
        pass
    [letter] = read(here, "letters", "list", "--agent", "ghost:a")
    assert letter["messageId"] == sent
    opened = read(here, "letters", "show", letter["id"])
    assert (opened["messageType"], opened["payload"]) == ("hello", {"n": 1})
    told = troupe(here, "letters", "redeliver", sent, "--payload", "-", stdin='{"n": 2}')
    assert "troupe agents messages ghost:a" in told
    [_, new] = read(here, "agents", "messages", "ghost:a")
    assert new["message"]["content"] == {"n": 2}


@pytest.mark.parametrize(
    ("args", "stdin", "said"),
    [
        (("--payload", "-"), "{", "is no JSON"),
        (("--payload", "-"), "", "is no JSON"),
        (("--payload", "/nowhere/payload.json"), None, "/nowhere/payload.json"),
    ],
)
def test_a_payload_that_can_not_be_read_is_a_usage_error(
    here: Desk, args: tuple[str, ...], stdin: str | None, said: str
) -> None:
    """The letter would be delivered with half of it, or with nothing."""
    assert said in troupe(here, "letters", "redeliver", "job_1", *args, code=2, stdin=stdin)


def test_a_letter_that_is_not_there_says_what_is(here: Desk) -> None:
    """`There is no such thing` would be all there is to go by."""
    said = troupe(here, "letters", "show", "job_none", code=4)
    assert "There is no dead letter of job_none." in said
    assert "troupe letters" in said
