"""Crash points: a kill at any durable boundary of a job changes nothing but how long it takes."""

from __future__ import annotations

from runtime.verify.bugs import BUGS
from runtime.verify.crashpoints import crashpoints


def test_a_kill_at_any_boundary_changes_nothing() -> None:
    """Between some two writes a crash could lose a step, or make one twice."""
    outcome = crashpoints()
    assert outcome.good, outcome.details
    figure = outcome.figure
    assert figure["boundaries"] >= 60
    assert figure["kills"] == figure["sameEnd"] == figure["boundaries"]
    assert figure["recordedStepsBegunAgain"] == 0
    assert figure["kinds"]["before call"] == figure["kinds"]["after call"] == 7
    assert figure["outsideRepeated"] > 0, "a kill inside a call costs that call"


def test_a_turn_in_two_commits_is_found() -> None:
    """The comparison could be of something that no kill can change."""
    bug = next(one for one in BUGS if one.name == "acknowledged before the commit")
    with bug.planted():
        outcome = crashpoints()
    assert not outcome.good
    assert outcome.figure["sameEnd"] < outcome.figure["kills"]
    assert any("after commit" in line for line in outcome.details)
