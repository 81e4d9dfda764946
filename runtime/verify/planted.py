"""Are the bugs found?  Each planted bug is run over seeds until some rule is broken.

A detection that finds nothing in a runtime with a bug in it would find nothing
in one without.  Pairs are there because a single hole is often covered by
another layer; `alone` shows that each half of such a pair is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from runtime.verify.bugs import BUGS
from runtime.verify.bugs.bug import Bug
from runtime.verify.report import Outcome
from runtime.verify.simulate import run_seed

MASKED_MIN: Final = 6
"""Pairs of which a half alone must be hidden by another layer, or pairs would say nothing."""


@dataclass
class Found:
    """Where a bug was found."""

    seed: int
    tried: int
    """Seeds until then."""
    rule: str
    text: str


def find(bug: Bug, seeds: int, first: int = 1, which: int | None = None) -> Found | None:
    """Look for a bug; None: no seed has shown it.

    Args:
        which: plant only this half of a pair.
    """
    with bug.planted(which):
        for tried in range(1, seeds + 1):
            seed = first + tried - 1
            one, _ = run_seed(seed)
            if one.violations:
                violation = one.violations[0]
                return Found(seed, tried, violation.rule, violation.text)
    return None


def find_all(
    seeds: int = 200, first: int = 1, *, alone: bool = False, names: list[str] | None = None
) -> Outcome:
    """Look for every bug, or those of these names."""
    began = time.monotonic()
    chosen = [bug for bug in BUGS if not names or bug.name in names]
    entries = [_entry(bug, seeds, first, alone) for bug in chosen]
    missed = [entry["bug"] for entry in entries if entry["foundAt"] is None]
    masked = [entry["bug"] for entry in entries if None in entry.get("alone", ())]
    figure = {
        "bugs": len(entries),
        "pairs": sum(bug.is_pair for bug in chosen),
        "found": len(entries) - len(missed),
        "missed": missed,
        **({"masked": len(masked)} if alone else {}),
        "seedsAtMost": max((entry["seeds"] for entry in entries if entry["seeds"]), default=0),
        "seconds": round(time.monotonic() - began, 1),
        "each": entries,
    }
    sentence = f"{figure['found']} of {len(entries)} planted bugs found"
    sentence += (
        f", each within {figure['seedsAtMost']} seeds." if not missed else f"; not: {missed}."
    )
    if alone:
        sentence += f" Of {len(masked)} pairs a half alone was found in no seed."
    enough = not alone or bool(names) or len(masked) >= MASKED_MIN
    return Outcome(figure, sentence, bool(entries) and not missed and enough)


def _entry(bug: Bug, seeds: int, first: int, alone: bool) -> dict[str, Any]:
    found = find(bug, seeds, first)
    entry: dict[str, Any] = {
        "bug": bug.name,
        "pair": bug.is_pair,
        "foundAt": found and found.seed,
        "seeds": found and found.tried,
        "rule": found and found.rule,
    }
    if alone and bug.is_pair:
        tried = min(seeds, 4 * (found.tried if found else seeds))
        halves = [find(bug, tried, first, which) for which in range(len(bug.plants))]
        entry["alone"] = [half and half.rule for half in halves]
        entry["aloneSeeds"] = tried
    return entry
