"""How urgent an issue is: words may raise what was declared, never lower it.

Security, lost data, outages and money are critical where something is broken;
work that stands still, many people concerned and dates are high.  A negated
word says nothing ("no data was lost").  Only where nothing was declared and
nothing raises may modest words, or a mere question, make it low.
"""

from __future__ import annotations

import re
from typing import Final

from actors.classify.text import IssueText
from actors.records import PRIORITIES, Evidence, IssuePriority, IssueType


def _any(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


_THINGS: Final = (
    r"(?:data|notes?|files?|assets|hours|work|history|entries|documents?|changes|records|"
    r"contacts|everything|projects|it all|database)"
)
_LOST: Final = (
    r"(?:lost|gone|deleted|deletes|disappear\w*|vanish\w*|loses|overwritten|wiped|erased)"
)
_DAY: Final = (
    r"(?:tomorrow|tonight|today|(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|"
    r"april|june|july|august|september|october|november|december|q[1-4]|end of (?:the )?(?:day|"
    r"week))"
)

CRITICAL: Final = (
    ("urgency.security", _any(
        r"\b(?:sql |code |command )?injection\b", r"\bxss\b", r"\bcsrf\b", r"\brce\b",
        r"\bcve-\d{4}",
        r"\bremote code execution\b", r"\bdata (?:leak|breach)\w*", r"\bvulnerab\w+",
        r"\bpasswords?\b[^.\n]{0,80}\bplain ?text\b", r"\bplain ?text\b[^.\n]{0,80}\bpasswords?\b",
        r"\b(?:see|access|open|download)\b[^.\n]{0,30}\b(?:an)?other (?:company|customer|client|"
        r"tenant|organi[sz]ation)'?s?\b",
        r"\bbypass\w* (?:the )?(?:auth\w*|login|permission\w*)",
        r"\b(?:publicly|everybody can) (?:exposed|visible|read)\b",
        r"\bcredentials? (?:are|were|is|was) (?:leaked|exposed)\b",
    )),
    ("urgency.data_loss", _any(
        rf"\b(?:all|whole|every|hundreds of|thousands of|around \d+|"
        rf"more)\b[^.\n]{{0,60}}\b{_LOST}\b",
        rf"\b{_THINGS} (?:are|keep|is) (?:disappearing|vanishing|being deleted)\b",
        r"\bdata ?loss\b",
    )),
    ("urgency.no_backup", _any(
        r"\bbackups? (?:have|has|had|did) not (?:been )?run\w*",
        r"\bno (?:recent )?(?:copy|backup)s? of\b",
    )),
    ("urgency.outage", _any(
        r"\beverything is down\b",
        r"\b(?:site|app|system|production|server|service|platform)\b[^.\n]{0,15}\bis down\b",
        r"\bnobody\b[^.\n]{0,40}\bcan (?:log|sign|work|get|access|use)\b", r"\b50[0-4] on every\b",
        r"\b(?:all|every) users?\b[^.\n]{0,40}\b(?:can't|cannot|unable|locked out)\b",
        r"\bcomplete outage\b",
    )),
    ("urgency.money", _any(r"\bcharged? (?:\w+ )?(?:twice|double)\b", r"\bdouble[- ]charg\w+",
    r"\bwrong account\b[^.\n]{0,30}\bpaid\b")),
)  # fmt: skip

HIGH: Final = (
    ("urgency.data_lost", _any(
        rf"\b{_THINGS}\b[^.\n]{{0,40}}\b{_LOST}\b", rf"\b{_LOST}\b[^.\n]{{0,30}}\b{_THINGS}\b",
        r"\ball gone\b", r"\bwent with it\b",
    )),
    ("urgency.blocked", _any(
        r"\bblock(?:ed|s|er|ing)\b", r"\bno workaround\b",
        r"\bcan(?:'t|not) (?:log ?in|save|get in|work|access)\b",
        r"\b(?:crash\w*|dies|white screen)\b[^.\n]{0,20}\b(?:on|at) (?:start|launch|open)\w*",
        r"\bwe(?:'ve)? stopped \w+ing\b",
    )),
    ("urgency.many", _any(
        r"\b(?:whole|entire) (?:team|office|company|department|sales team)\b",
        r"\bfor (?:everyone|everybody|all users|the whole)\b",
        r"\bnone of (?:our|the)\b",
        r"\b(?:everyone|everybody|all users|all customers) (?:is|are|has|have|in)\b",
        r"\b\d+ (?:people|users|customers|clients) (?:are |were )?affected\b", r"\bnobody can\b",
    )),
    ("urgency.date", _any(
        rf"\b(?:by|before|until|due) (?:next |this )?{_DAY}\b",
        r"\b(?:is|meeting|launch|demo)\b[^.\n]{0,20}\b(?:tomorrow|tonight)\b",
        r"\b(?:urgent|asap|emergency)\b", r"\blegal(?:ly)? require\w*", r"\bis mandatory\b",
        r"\bcompliance\b",
    )),
    ("urgency.security_matter", _any(r"\bsecurity (?:issue|hole|problem|incident|risk)\b",
    r"\bleaked\b", r"\bunauthori[sz]ed access\b")),
)  # fmt: skip

LOW: Final = _any(
    r"\b(?:typo|cosmetic|nitpick|favicon|tooltip|footer)\b", r"\bminor\b", r"\bnice to have\b",
    r"\bno rush\b", r"\bnot (?:urgent|important|a big deal)\b",
    r"\blow prio\w*", r"\bwhenever (?:you|someone)\b", r"\bwould be (?:cute|nicer|handy)\b",
    r"\bsilly\b", r"\bdoesn't break anything\b",
    r"\bnot really broken\b", r"\bnobody (?:runs|uses|has called)\b", r"\bwould look\b",
    r"\bhandy\b",
)  # fmt: skip

_LEVELS: Final[tuple[tuple[IssuePriority, tuple[tuple[str, re.Pattern[str]], ...]], ...]] = (
    ("critical", CRITICAL),
    ("high", HIGH),
)
_DENIALS: Final = frozenset(
    {"urgency.no_backup", "urgency.outage", "urgency.blocked", "urgency.many"}
)
"""Rules whose phrases say `no` or `not` themselves."""
_RAISED_AT_MOST: Final[dict[IssueType, IssuePriority]] = {
    "question": "high",
    "feature": "high",
    "enhancement": "high",
}
"""A wish or a question about a disaster is no disaster."""


def urgency_of(
    text: IssueText, declared: IssuePriority | None, type: IssueType
) -> tuple[IssuePriority, tuple[Evidence, ...]]:
    """The priority, and the words that raised or lowered it."""
    raised, evidence = _raised(text, type)
    if declared is not None:
        return most_urgent(declared, raised or declared), evidence
    if raised is not None:
        return raised, evidence
    modest = text.find(LOW)
    if modest is not None:
        return "low", (Evidence(rule="urgency.modest", quote=modest.quote),)
    return ("low" if type == "question" else "medium"), ()


def _raised(text: IssueText, type: IssueType) -> tuple[IssuePriority | None, tuple[Evidence, ...]]:
    for level, rules in _LEVELS:
        found = [
            (name, text.find_meant(pattern, negative=name in _DENIALS)) for name, pattern in rules
        ]
        evidence = tuple(Evidence(rule=name, quote=it.quote) for name, it in found if it)
        if evidence:
            return least_urgent(level, _RAISED_AT_MOST.get(type, "critical")), evidence
    return None, ()


def most_urgent(one: IssuePriority, other: IssuePriority) -> IssuePriority:
    return min(one, other, key=PRIORITIES.index)


def least_urgent(one: IssuePriority, other: IssuePriority) -> IssuePriority:
    return max(one, other, key=PRIORITIES.index)
