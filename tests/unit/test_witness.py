"""The witness of the kill test: it would be worthless if it excused everything."""

from __future__ import annotations

from tests.acceptance.witness import Call, Kill, paid_twice, unexplained

ONCE, FIRST, SECOND = Call("a", 10), Call("b", 20), Call("b", 40)
HOST = Kill("host", 30)


def test_only_a_repeated_request_was_paid_twice() -> None:
    """Each request of a walk would count, or none."""
    assert paid_twice([SECOND, ONCE, FIRST]) == [(FIRST, SECOND)]
    assert paid_twice([ONCE, FIRST]) == []


def test_a_kill_of_the_host_in_between_explains_a_repeat() -> None:
    """The promise allows this one."""
    assert unexplained([(FIRST, SECOND)], [HOST], {"b": 50}) == []


def test_other_kills_and_other_times_explain_nothing() -> None:
    """A repeat without a reason would pass if anything was killed at any time."""
    for kills in ([], [Kill("store", 30)], [Kill("host", 19)], [Kill("host", 41)]):
        assert unexplained([(FIRST, SECOND)], kills, {"b": 50}), kills


def test_a_recorded_answer_is_never_asked_for_again() -> None:
    """A kill after the record would excuse paying again."""
    assert unexplained([(FIRST, SECOND)], [HOST], {"b": 39})
