"""The rules see what people mean, say why, and know when they do not know."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.classify import classify
from actors.records import PRIORITIES, Classification, IssueSubmission


def submit(title: str, description: str = "", **fields: object) -> IssueSubmission:
    body = {"source": "manual", "title": title, "description": description, **fields}
    return IssueSubmission.model_validate(body)


def of(title: str, description: str = "", **fields: object) -> Classification:
    return classify(submit(title, description, **fields))


@pytest.mark.parametrize(
    ("title", "description", "type"),
    [
        ("Export dies", "Traceback (most recent call last):\n  File 'x'\nKeyError: 'a'", "bug"),
        ("Cannot save the form", "Expected: saved\nActual: nothing", "bug"),
        ("Why does the export crash?", "It crashes since the update.", "bug"),
        ("Could we get a dark theme", "It would be nice to have.", "feature"),
        ("[Feature] Calendar", "As a planner I want to see a week.", "feature"),
        ("Make the list faster", "It works but takes about 9 seconds.", "enhancement"),
        ("How do I change the logo?", "I can't figure out where it is.", "question"),
        ("Upgrade to Python 3.12", "3.9 is EOL.", "task"),
        ("Remove the unused endpoint", "Nobody uses it.", "task"),
    ],
)
def test_plain_issues_get_their_type(title: str, description: str, type: str) -> None:
    """Would send people's plainest reports to the wrong agent."""
    found = of(title, description)
    assert (found.type, found.abstained) == (type, False)
    assert found.evidence and 0.5 < found.confidence <= 1


@pytest.mark.parametrize(
    ("title", "description"),
    [
        ("hi", ""),
        ("The acme account", "thanks"),
        ("Fehler beim Speichern", "Seit gestern geht nichts mehr."),
        ("Dashboard", "numbers"),
    ],
)
def test_without_a_signal_a_person_is_asked(title: str, description: str) -> None:
    """Would guess, and be believed."""
    found = of(title, description)
    assert found.abstained and found.abstain_reason == "no_signal"
    assert (found.type, found.agent_type) == ("task", "triage")


def test_two_meanings_of_equal_weight_are_nobodys() -> None:
    """Would decide by the order of the rules."""
    found = of("Improve startup: it crashes", "")
    assert found.abstain_reason == "narrow_margin"
    assert {item.rule.partition(".")[0] for item in found.evidence} >= {"bug", "enhancement"}


def test_words_in_code_are_not_the_authors() -> None:
    """Would call a question a bug because its example prints `failed`."""
    code = "```\nprint('failed, broken, crashed, wrong')\n```"
    found = of("How do I silence this?", f"What do I need to set?\n{code}")
    assert found.type == "question"


@pytest.mark.parametrize(
    ("description", "priority"),
    [
        ("The export button is broken.", "medium"),
        ("Export fails with an SQL injection in the filter.", "critical"),
        ("Broken: all files of the project are gone.", "critical"),
        ("Broken, but no data was lost.", "medium"),
        ("It fails, nothing was deleted from the history though.", "medium"),
        ("It never lost any data, the label is just wrong.", "medium"),
        ("Export fails and the notes are lost.", "high"),
        ("Nobody in the office can log in, everything is broken.", "critical"),
        ("Everything is down, 502 on every page.", "critical"),
        ("Export fails, the whole team cannot work.", "high"),
        ("Broken, we need it by Friday.", "high"),
        ("The footer has a typo.", "low"),
        ("It fails now and then, not urgent.", "low"),
    ],
)
def test_urgency_follows_the_words_and_their_negation(description: str, priority: str) -> None:
    """Would wake people for "no data was lost", or sleep through an outage."""
    assert of("Export is broken", description).priority == priority


def test_rules_raise_what_was_declared_and_never_lower_it() -> None:
    """Would let a modest word bury a critical issue."""
    assert of("Broken typo in footer", "no rush", priority="critical").priority == "critical"
    raised = of("Broken", "All customer data is lost.", priority="low")
    assert raised.priority == "critical"
    assert any(item.rule.startswith("urgency.") for item in raised.evidence)


def test_a_wish_about_a_disaster_is_no_disaster() -> None:
    """Would put every "what if everything is down" before real outages."""
    found = of("How do we find out that everything is down?", "I am not sure whether we can.")
    assert (found.type, found.priority) == ("question", "high")


def test_what_was_declared_wins_over_the_rules() -> None:
    """Would overrule the source that knows its own tickets."""
    found = of("How do I fix the crash?", "It crashes.", type="task", context={"module": "crm"})
    assert (found.type, found.module, found.abstained) == ("task", "crm", False)
    assert found.agent_type == "code"
    silent = of("hi", "", type="feature")
    assert (silent.type, silent.abstained) == ("feature", False)
    disputed = of("Export crashes", "It is broken.", type="feature")
    assert disputed.confidence < silent.confidence


@pytest.mark.parametrize(
    ("title", "files", "module"),
    [
        ("Invoices have the wrong total", (), "billing"),
        ("Contact search is broken", (), "crm"),
        ("Brief export and contact search are broken", (), None),
        ("It is broken", ("src/modules/briefs/export.ts",), "briefs"),
        ("It is broken", ("src/modules/briefs/a.ts", "src/modules/crm/b.ts"), None),
        ("It is broken", (), None),
    ],
)
def test_the_module_is_named_only_if_one_stands_out(
    title: str, files: tuple[str, ...], module: str | None
) -> None:
    """Would file half of the issues under the wrong team."""
    assert of(title, "", context={"affectedFiles": list(files)}).module == module


def test_agent_and_capabilities_follow_from_type_and_words() -> None:
    """Would send a question to the agent that edits files."""
    assert of("How do I export?", "I can't figure out where it is.").agent_type == "research"
    bug = of("Query is slow and crashes", "The sql query fails on postgres.")
    assert bug.agent_type == "code"
    assert {"edit_files", "database", "performance"} <= set(bug.capabilities)
    assert of("Fix the broken label", "typo").complexity == "simple"
    assert (
        of("Sync fails", "Race condition between sync workers, deadlock.").complexity == "complex"
    )


@settings(max_examples=50, deadline=None)
@given(
    st.text(min_size=1, max_size=200).filter(str.strip),
    st.text(max_size=2_000),
    st.sampled_from([None, *PRIORITIES]),
)
def test_every_quote_is_in_the_issue_and_the_answer_is_stable(
    title: str, description: str, priority: str | None
) -> None:
    """Would show evidence that nobody wrote, or answer differently after a crash."""
    submission = submit(title, description, priority=priority)
    found = classify(submission)
    assert found == classify(submission)
    assert all(item.quote in title or item.quote in description for item in found.evidence)
    assert found.classifier == "rules@1"
    assert found.abstained == (found.abstain_reason is not None) == (found.agent_type == "triage")
    if priority:
        assert PRIORITIES.index(found.priority) <= PRIORITIES.index(priority)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["\n", "a ", "no ", "all files ", "at x ("])
def test_the_time_grows_no_faster_than_the_issue(unit: str) -> None:
    """Would stall triage of everybody's issues with one crafted text."""

    def cost(length: int) -> float:
        submission = submit("x", (unit * length)[:length])
        began = time.process_time()
        classify(submission)
        return time.process_time() - began

    short, long = (min(cost(length) for _ in range(3)) for length in (2_000, 16_000))
    assert long / short < 30, "8 for linear, 64 for quadratic"
