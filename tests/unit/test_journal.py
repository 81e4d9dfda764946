"""Diff, apply, fold and upcast: the meaning of a journal."""

from __future__ import annotations

import copy

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runtime.journal import apply, diff, encode, fold

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)
STATES = st.dictionaries(st.text(max_size=2), JSON, max_size=5)


@given(STATES, STATES)
def test_a_patch_turns_before_into_after(before, after) -> None:
    """A replayed state would not be the one that was committed."""
    assert apply(copy.deepcopy(before), diff(before, after)) == after


@given(st.lists(STATES, min_size=1, max_size=6), st.integers(0, 5))
def test_a_snapshot_and_its_tail_are_the_whole_journal(states, cut) -> None:
    """An agent would wake with another state after a snapshot than before."""
    events, current = [], {}
    for state in states:
        events.append((encode(diff(current, state)), 1))
        current = state
    cut = min(cut, len(states))
    base = (copy.deepcopy(states[cut - 1]), 1) if cut else None
    assert fold(None, events, 1, {}) == states[-1]
    assert fold(base, events[cut:], 1, {}) == states[-1]


@given(STATES, STATES)
def test_equal_states_leave_nothing_in_the_journal(before, after) -> None:
    """Turns that changed nothing would make the journal grow."""
    assert (diff(before, after) == []) == (before == after)


def test_an_old_state_is_lifted_where_the_schema_changes() -> None:
    """A new release could not read the journal of an old one."""
    events = [
        (encode(diff({}, {"name": "ann lee"})), 1),
        (encode([["set", ["first"], "bea"]]), 2),
    ]
    upcasters = {
        1: lambda s: {"first": s["name"].split()[0], "last": s["name"].split()[1]},
        2: lambda s: {**s, "title": ""},
    }
    assert fold(None, events, 3, upcasters) == {"first": "bea", "last": "lee", "title": ""}


def test_lists_that_grow_are_recorded_by_what_was_added() -> None:
    """A conversation kept in a state would be stored again with every message."""
    before = {"log": [f"line {n}" for n in range(1000)]}
    after = {"log": [*before["log"], "one more"]}
    assert len(msgspec.json.encode(diff(before, after))) < 50
