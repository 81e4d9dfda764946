"""Planted bugs are found; sentinels here, all of them by `troupe verify planted`."""

from __future__ import annotations

import pytest

from runtime.verify.bugs import BUGS
from runtime.verify.bugs.bug import Bug, Plant
from runtime.verify.planted import find_all
from runtime.verify.simulate import run_seed

SENTINELS = {
    "epoch and version not compared": "I4",
    "acknowledged before the commit": "IUnits",
    "retry loses its place": "I3",
    "limit off by one": "I9",
    "priority ignored": "I18",
    "held agents get jobs": "I10",
    "feed published though refused": "I14",
}


def bug(name: str) -> Bug:
    return next(one for one in BUGS if one.name == name)


@pytest.mark.parametrize(("name", "rule"), SENTINELS.items())
def test_a_planted_bug_is_found(name, rule) -> None:
    """The simulation could have gone blind without anybody noticing."""
    with bug(name).planted(None):
        runs = [run_seed(seed)[0] for seed in (1, 2, 3)]
    assert rule in {violation.rule for one in runs for violation in one.violations}


def test_there_are_enough_bugs_and_pairs_and_each_has_a_name() -> None:
    """A detection rate over few bugs says little."""
    assert len(BUGS) >= 20
    assert sum(one.is_pair for one in BUGS) >= 6
    assert len({one.name for one in BUGS}) == len(BUGS)


@pytest.mark.parametrize("one", BUGS, ids=lambda one: one.name)
def test_a_bug_is_planted_and_taken_back(one) -> None:
    """A plain run would count as blind, or what comes after have the bug in it."""
    places = [(plant.owner, plant.name) for plant in one.plants]
    before = [vars(owner)[name] for owner, name in places]
    with one.planted():
        for (owner, name), value in zip(places, before, strict=True):
            assert vars(owner)[name] is not value
    assert [vars(owner)[name] for owner, name in places] == before


def test_a_bug_that_fits_no_more_says_so() -> None:
    """A renamed method would make a planted bug a plain run."""
    with pytest.raises(AttributeError), Plant(Bug, "no_such_method", lambda _: None).planted():
        pass


def test_a_pair_masks_each_other_and_a_bug_that_is_missed_fails_the_run() -> None:
    """A hole in one layer, or in two, could stay open and be counted as found."""
    pair = find_all(seeds=2, alone=True, names=["epoch and version not compared"])
    assert pair.good
    assert pair.figure["masked"] == 1
    [entry] = pair.figure["each"]
    assert entry["alone"] == ["I4", None]
    rare = "scheduler does not notice its loss"
    missed = find_all(seeds=1, names=[rare])
    assert not missed.good
    assert missed.figure["missed"] == [rare]
