"""Where an issue is and what it takes: module, complexity, agent, capabilities.

Estimates, and cheap to be wrong about: they choose a queue and a budget, not
what may be delivered.  A declared module is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from actors.classify.text import IssueText
from actors.records import AgentType, Complexity, Evidence, IssueType

LONG_DESCRIPTION: Final = 1_500
MANY_FILES: Final = 6

MODULES: Final = {
    "briefs": r"\bbrief(?:s|ing|ings)?\b|\bapprov(?:er|ers|al)\b",
    "crm": r"\bcrm\b|\bcontacts?\b|\bleads?\b|\bopportunit(?:y|ies)\b|\bclient list\b|\boutlook\b",
    "retainers": r"\bretainers?\b|\bburn rate\b|\btime entr(?:y|ies)\b|\bbudget overrun\b",
    "studio": r"\bstudio\b|\bproof(?:s|ing)\b|\bassets?\b|\bgallery\b|\bthumbnails?\b|\bviewer\b|"
    r"\.psd\b",
    "billing": r"\binvoic(?:e|es|ing)\b|\bbilling\b|\bpayments?\b|\bcharged\b|\bvat\b|\brefunds?\b",
    "auth": r"\blog ?(?:in|out)\b|\bpasswords?\b|\bsso\b|\b2fa\b|\btwo.factor\b|\bbearer token\b|"
    r"\bsessions?\b",
}
_MODULES: Final = {name: re.compile(words, re.IGNORECASE) for name, words in MODULES.items()}
_MODULE_PATH: Final = re.compile(
    r"(?:^|/)(?:modules|features|apps|packages)/([A-Za-z][\w-]{0,60})/"
)
_TITLE_COUNTS: Final = 3

_COMPLEX: Final = re.compile(
    r"\b(?:migrat\w+|refactor\w*|rewrite|redesign|architect\w+|race condition|deadlock|"
    r"concurren\w+|memory (?:leak|usage)|oom|integration with|multi-?tenan\w+|"
    r"across (?:the|all)|encrypt\w*|failover|sync\w*|performance|legal requirement|2fa|"
    r"two factor|sso|region|backwards? compatib\w+|offline)\b",
    re.IGNORECASE,
)
_SIMPLE: Final = re.compile(
    r"\b(?:typo|rename|label|wording|link|favicon|footer|tooltip|alignment|cosmetic|icon|"
    r"colou?r|screenshots?|readme|bump|archive|placeholder text|copyright)\b",
    re.IGNORECASE,
)

_CAPABILITIES: Final = tuple(
    (name, re.compile(words, re.IGNORECASE))
    for name, words in (
        ("frontend",
        r"\b(?:css|button|tooltip|safari|chrome|firefox|page|layout|react|browser|\w+\.tsx|ui|"
        r"screen)\b"),
        ("database",
        r"\b(?:sql|database|migration|query|postgres|sqlite|index is|reindex|backfill)\b"),
        ("security",
        r"\b(?:security|vulnerab\w+|injection|passwords?|token|xss|csrf|encrypt\w*|permission\w*|"
        r"gdpr)\b"),
        ("performance", r"\b(?:slow|performance|memory|latency|timeouts?|speed up|oom)\b"),
        ("documentation", r"\b(?:docs?|readme|documentation|handbook|wiki|runbook|screenshots)\b"),
        ("devops",
        r"\b(?:docker|ci|deploy\w*|cron|kubernetes|terraform|pipeline|staging|server)\b"),
        ("testing", r"\b(?:tests?|flaky|coverage|pytest|jest)\b"),
    )
)  # fmt: skip
_OF_AGENT: Final[dict[AgentType, tuple[str, ...]]] = {
    "code": ("edit_files", "git", "run_tests"),
    "research": ("search", "read", "analyze"),
    "triage": ("classify", "prioritize"),
}


def module_of(
    text: IssueText, declared: str | None, files: Sequence[str]
) -> tuple[str | None, tuple[Evidence, ...]]:
    """The module, if one stands out."""
    if declared:
        return declared, ()
    named = {match[1].lower() for path in files if (match := _MODULE_PATH.search(path))}
    if len(named) == 1:
        return named.pop(), ()
    counts = {
        name: _TITLE_COUNTS * len(words.findall(text.title)) + len(words.findall(text.prose))
        for name, words in _MODULES.items()
    }
    best, second = sorted(counts.values(), reverse=True)[:2]
    if best in (0, second):
        return None, ()
    name = max(counts, key=lambda item: counts[item])
    found = text.find(_MODULES[name])
    return name, (Evidence(rule=f"module.{name}", quote=found.quote),) if found else ()


def complexity_of(text: IssueText, type: IssueType, files: Sequence[str]) -> Complexity:
    """How much work it looks like."""
    hints = len(_COMPLEX.findall(text.title)) * 2 + len(_COMPLEX.findall(text.prose))
    if hints >= 2 or len(files) >= MANY_FILES:
        return "complex"
    if type == "feature" and len(text.description) > LONG_DESCRIPTION:
        return "complex"
    if type == "question" or (hints == 0 and text.find(_SIMPLE)):
        return "simple"
    return "medium"


def agent_of(type: IssueType, abstained: bool) -> AgentType:
    """Who works on it: nobody, before a person has looked at what nobody understood."""
    if abstained:
        return "triage"
    return "research" if type == "question" else "code"


def capabilities_of(text: IssueText, agent: AgentType) -> tuple[str, ...]:
    """What the work takes, most general first."""
    hints = tuple(name for name, words in _CAPABILITIES if text.find(words))
    return (*_OF_AGENT[agent], *hints)
