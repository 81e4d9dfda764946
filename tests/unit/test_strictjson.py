"""JSON that means one thing, for what comes over HTTP and what is typed."""

from __future__ import annotations

import json

import pytest

from runtime.strictjson import INTEGER_MAX, AmbiguousJsonError, read_strictly


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ('[{"b": {"c": 1, "c": 1}}]', "twice"),
        ("NaN", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("1e999", "range"),
        (str(INTEGER_MAX + 1), "range"),
        ("9" * 10_000, "range"),
        (r'"\ud800"', "half"),
        (r'{"\uDFFF": 1}', "half"),
        ('"\udc80"', "half"),
    ],
)
def test_what_does_not_mean_one_thing_is_refused(text: str, why: str) -> None:
    """It would be stored as one thing and read as another, or not be writable at all."""
    with pytest.raises(AmbiguousJsonError, match=why):
        read_strictly(text)


@pytest.mark.parametrize("text", [r'"\ud83d\ude00"', '"😀"', str(INTEGER_MAX), "-1.5", "{}"])
def test_what_does_is_read_as_by_anybody(text: str) -> None:
    """An emoji or a large number would be refused."""
    assert read_strictly(text) == json.loads(text)
