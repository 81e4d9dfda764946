"""What kind of work an issue is: rules that vote, and the right to abstain.

Each rule is a phrase that speaks for one type with a weight, and counts once.
The type with the most votes wins if it is ahead by enough; else nobody knows,
and a person is asked.  Rules are written for how people report things, so a
polite "could we get ..." is a wish and "why does it crash" still a failure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, get_args

from actors.classify.text import IssueText
from actors.records import Evidence, IssueType

VOTES_MIN: Final = 2.5
"""Votes a type needs at all."""
MARGIN_MIN: Final = 1.0
"""Votes it must be ahead of the next."""
TITLE_FACTOR: Final = 1.5
"""People put what they want into the title."""


@dataclass(frozen=True)
class Rule:
    """A phrase that speaks for a type."""

    name: str
    type: IssueType
    votes: float
    pattern: re.Pattern[str]
    raw: bool = False
    """Whether it looks into code and logs, too."""
    title_only: bool = False


@dataclass(frozen=True)
class TypeVote:
    """The outcome: `reason` is a code when nobody won."""

    type: IssueType
    confidence: float
    evidence: tuple[Evidence, ...]
    reason: str | None


def _rule(name: str, type: IssueType, votes: float, *parts: str, **how: bool) -> Rule:
    flags = re.MULTILINE if how.get("raw") else re.MULTILINE | re.IGNORECASE
    return Rule(name, type, votes, re.compile("|".join(parts), flags), **how)


_WANT: Final = r"(?:i|we)(?:'d| would)? (?:really |also )?(?:love|like|want|need|wish)"
_VERB_OF_FAILURE: Final = (
    r"(?:work|load|save|open|close|arrive|start|find|sync|show|appear|respond|log|connect|send|"
    r"render|update|finish|survive|match|add up|invalidate|get in|add|approve|see|upload|login)"
)

RULES: Final[tuple[Rule, ...]] = (
    _rule(
        "bug.traceback", "bug", 4,
        r"Traceback \(most recent call last\)",
        r"^[ \t]{1,40}at \S{1,200} \(.{1,200}:\d+(?::\d+)?\)",
        r'^[ \t]{0,40}File ".{1,200}", line \d+', r"^panic: ", r"Exception in thread", raw=True,
    ),
    _rule(
        "bug.error_name", "bug", 3,
        r"\b[A-Z][A-Za-z]*(?:Error|Exception|Warning)\b", r"\bE[A-Z]{4,}\b: ",
        r"\b(?:HTTP |status )?50[0234]\b", r"\b[Ss]egfault|SIGSEGV|core dumped", raw=True,
    ),
    _rule(
        "bug.expected_actual", "bug", 3,
        r"^[^\w\n]{0,8}expected\b[^\n]{0,400}\n{1,3}(?:[^\n]{0,400}\n)?[^\w\n]{0,8}(?:actual|got|"
        r"instead)\b",
        r"\bactual (?:result|behaviou?r)\b",
    ),
    _rule(
        "bug.named", "bug", 4,
        r"^[^\w\n]{0,8}(?:bug|bug report|defect|regression)\b\]?\s*[:\]\-]",
        r"\bdescribe the (?:bug|problem)\b",
        r"\b(?:a|little|small|found a|this) bug\b",
    ),
    _rule(
        "feature.named", "feature", 4,
        r"^[^\w\n]{0,8}feature(?: request)?\b\]?\s*[:\]\-]", r"\bfeature request\b",
        r"\bdescribe the solution you'd like\b",
        r"\bwhat would you like to be added\b", r"^[^\w\n]{0,8}feat\s*(?:\(.{1,40}\))?\s*:",
    ),
    _rule(
        "enhancement.named", "enhancement", 4,
        r"^[^\w\n]{0,8}(?:enhancement|improvement)\b\]?\s*[:\]\-]",
    ),
    _rule(
        "question.named", "question", 4,
        r"^[^\w\n]{0,8}(?:question|help|support)\b\]?\s*[:\]\-]", r"^help (?:with|needed|wanted)\b",
    ),
    _rule(
        "task.named", "task", 4,
        r"^[^\w\n]{0,8}(?:task|chore|docs?|refactor)\b\]?\s*(?:\(.{1,40}\))?\s*[:\]\-]",
    ),
    _rule(
        "bug.why", "bug", 3,
        r"^(?:so )?why (?:is|are|do|does|did|was|were|can't|won't)\b[^?\n]{0,120}\b(?:crash|fail|"
        r"broken|"
        r"wrong|lost|missing|gone|empty|hang|freez|stuck|disappear)\w*",
        title_only=True,
    ),
    _rule("bug.steps", "bug", 2, r"\bsteps(?: to reproduce)?:", r"\bto reproduce\b",
    r"\bi verified\b"),
    _rule(
        "bug.does_not", "bug", 3,
        r"\b(?:does(?:n'?t| not)|do(?:n'?t| not)|did(?:n'?t| not)|wo(?:n't|nt)|can(?:'?t|not| not)|"
        rf"no longer|never|unable to|stopped) (?:\w+ )?{_VERB_OF_FAILURE}\w*",
        r"\b(?:does|do) nothing\b", r"\bhas no effect\b", r"\bstopped\b(?! sending)",
        r"\b(?:is|are|was|just) (?:no longer|not) (?:\w+ )?(?:working|showing|saved|shown|sent|"
        r"loaded|updated)\b",
        r"\bnot (?:showing|working|loading|saving|appearing)\b",
        r"\bnobody\b[^.\n]{0,30}\bcan\b", r"\bnone of\b[^.\n]{0,30}\bcan\b",
    ),
    _rule(
        "bug.does_not_otherwise", "bug", 2,
        r"\b(?:does|do)(?:n'?t| not) (?!(?:support|have|allow|exist|matter|know|want|need|think|"
        r"really|seem|see|care|break|"
        r"use|run|understand|like)\b)\w+",
    ),
    _rule(
        "bug.failure", "bug", 2.5,
        r"\b(?:broken|bug|bugs|crash\w*|fail(?:s|ed|ing|ure)?|freez\w+|hangs?|stuck|dies|"
        r"corrupt\w*|"
        r"regression|glitch\w*|outage|is down|malfunction\w*|vulnerab\w+|injection|flaky|"
        r"memory leak|oom|race condition|silently)\b",
        r"\bruns forever\b", r"\bsomething(?:'s| is| went) wrong\b",
    ),
    _rule(
        "bug.wrong_result", "bug", 2.5,
        r"\b(?:wrong|incorrect\w*|mislead\w+|garbled|blank|stale|misaligned|missing|typo|twice|"
        r"doubled?|duplicated)\b",
        r"\b(?:los(?:es|t|ing)|disappear\w*|vanish\w*|eats|overwrit\w+|ignore[sd]|messes up|"
        r"breaks|shows? (?:page )?(?:0|undefined|nan))\b",
        r"\b(?:was|were|is|are|all) gone\b", r"\bbecomes?\b", r"\bdrops? \w+ (?:silently|randomly)",
        r"\boff by one\b", r"\bdon't add up\b", r"'undefined'|\bundefined in\b",
        r"\boverlap\w*\b", r"\bexpires? (?:immediately|right away)\b", r"\bbroken link\b",
        r"\bby mistake\b", r"\bunexpected(?:ly)?\b",
    ),
    _rule(
        "bug.regression", "bug", 2,
        r"\b(?:since|after|as of|with) (?:the |our |my |this |we |an? )?(?:last |latest |new )?"
        r"(?:update|upgrade|release|deploy\w*|version|migration|merge\w*|\d+\.\d+)",
        r"\bsince (?:yesterday|last night|today|this morning|mon|tues?|wednes|thurs?|fri|satur|"
        r"sun|about|[a-z]+ \d)\w*",
        r"\b(?:as of|since) (?:this morning|today|yesterday|\d)", r"\bused to work\b",
        r"\bworked (?:before|until|fine|yesterday)\b", r"\b\d\S* worked\b", r"\bagain since\b",
    ),
    _rule(
        "bug.exposure", "bug", 3,
        r"\bi can (?:still )?see (?:an)?other\b", r"\bplain ?text\b", r"\bcharged twice\b",
        r"\bdata leak\w*\b",
        r"\bare (?:being )?exposed\b", r"\bhave not been running\b", r"\bno space left\b",
    ),
    _rule("bug.shown_text", "bug", 1.5, r"\bit says\b", r"\binstead of\b(?! writing)",
    r"\bshould (?:be|say|show|begin)\b"),
    _rule(
        "feature.wish", "feature", 3,
        rf"\b{_WANT} (?:to|an?|some|the ability|every|our|it if)\b", r"\bwould love\b",
        r"\bcould (?:we|you|i|there) (?:please )?(?:get|have|be|add)\b", r"\bplease add\b",
        r"\bwe need\b", r"\bwould save (?:us|me|every)",
        r"\b(?:would|wouldn't|would'nt) (?:also )?(?:it )?(?:look|be) "
        r"(?:great|nice|cool|good|useful|helpful|amazing|awesome)\b",
        r"\b(?:thoughts|idea)s?(?: on adding|\s*:)", r"\b(?:may|might) be useful\b",
        r"\brequires? (?:us|2fa|\w+ for all)\b",
    ),
    _rule(
        "feature.story", "feature", 3, r"\bas an? [\w ]{2,40},? i (?:want|need|would like)\b",
    ),
    _rule(
        "feature.absent", "feature", 2.5,
        r"\b(?:no|not any|isn't any|isn't a) way (?:of|to)\b", r"\bbadly missing\b",
        r"\b(?:can|could|only) only\b",
        r"\bability to\b", r"\bsupport for\b", r"\bis (?:currently )?not (?:supported|possible)\b",
        r"\bright now we can only\b", r"\bbeing able to\b", r"\balert me\b",
        r"\bi need (?:the|an?)\b",
    ),
    _rule(
        "feature.add", "feature", 2,
        r"^(?:please )?(?:add|allow|support|implement|introduce|integrate|provide|enable|offer|"
        r"create)\b(?! (?:codeowners|tests?|docs?)\b)",
        title_only=True,
    ),
    _rule("feature.new", "feature", 1.5, r"\bnew (?:feature|endpoint|page|role|option)\b",
    r"\bendpoint to\b", r"\bintegration with\b"),
    _rule(
        "enhancement.comparative", "enhancement", 1.5,
        r"\b(?:would|could|should) (?:\w+ ){0,3}(?:better|faster|nicer|bigger|smaller|easier|"
        r"clearer)\b",
        r"\b(?:really |too |very )(?:slow|long|small|big)\b",
    ),
    _rule(
        "enhancement.better", "enhancement", 3,
        r"\b(?:better|faster|nicer|bigger|smaller|sharper|shorter|larger|easier|clearer|smoother|"
        r"improve\w*)\b",
        r"\b(?:finer|speed up|reduce|shorten|simplify|optimi[sz]e\w*|polish|streamline)\b",
        r"\b(?:really |too |very )slow\b",
        r"\bautosave\b", r"\bremember the\b", r"\bkeep (?:the |my )?\w+ when\b",
        r"\bmake (?:the|it|this)\b",
        title_only=True,
    ),
    _rule(
        "enhancement.works_but", "enhancement", 2.5,
        r"\bit works,? (?:it's|but|just)\b", r"\bworks,? but\b", r"\bpainful\b", r"\bannoying\b",
        r"\bhandy\b",
        r"\b(?:takes|took) (?:about |around |over )?\d+ (?:s|sec\w*|min\w*|h|hours?)\b",
        r"\b(?:every|each) (?:time|single one)\b",
    ),
    _rule(
        "enhancement.today", "enhancement", 1.5,
        r"\b(?:right now|currently|at the moment|at present|today)\b[^.\n]{0,40}\b(?:only|is|has|"
        r"are|we|says)\b",
        r"\bwould (?:be nicer|help|do)\b", r"\bshould be enough\b", r"\bgroup(?:ed)? by\b",
    ),
    _rule(
        "question.title", "question", 3,
        r"^(?:so |and |sorry |quick question)?(?:how|why|what|where|when|which|who|is|are|can|do|"
        r"does|did|will|should)\b.*",
        r".*\?\W*$", title_only=True,
    ),
    _rule(
        "question.asks", "question", 2.5,
        r"\b(?:not sure (?:if|whether|how)|can't (?:figure|find) out|just want to know|wondering|"
        r"any idea|asking before|"
        r"is (?:it|that) (?:normal|expected|safe|intended)|what do i need to|"
        r"how do i|where do i|when do i|what happens when|do i have to)\b",
        r"\bnew here\b", r"\bdifference between\b", r"\bare you planning\b", r"\bto know which\b",
    ),
    _rule("question.mark", "question", 1.5,
    r"\b(?:how|why|what|where|when|which|who|is|are|can|do|does|or)\b[^.?!\n]{3,120}\?"),
    _rule(
        "task.imperative", "task", 3,
        r"^(?:please )?(?:bump|upgrade|update|rename|remove|delete|drop|migrate|move|replace|"
        r"rotate|clean ?up|archive|"
        r"document|write|set ?up|backfill|configure|refactor|convert|deprecate|pin|"
        r"merge (?:the )?branch|port|prepare|"
        r"add (?:codeowners|tests?|docs?|a test))\b",
        title_only=True,
    ),
    _rule(
        "task.chore", "task", 2,
        r"\b(?:eol|end of life|unmaintained|deprecat\w+|nobody (?:runs|uses|has called)|"
        r"one-off migration|"
        r"runbook|set up access|wiki|we agreed)\b",
    ),
)  # fmt: skip


def vote(text: IssueText) -> TypeVote:
    """Let the rules vote; on too few votes, or too close ones, the type is `task` with a reason."""
    scores: dict[IssueType, float] = dict.fromkeys(get_args(IssueType), 0.0)
    evidence: dict[IssueType, list[Evidence]] = {kind: [] for kind in scores}
    for rule in RULES:
        found = text.find(rule.pattern, raw=rule.raw, title_only=rule.title_only)
        if found is None:
            continue
        scores[rule.type] += rule.votes * (TITLE_FACTOR if found.in_title else 1)
        evidence[rule.type].append(Evidence(rule=rule.name, quote=found.quote))
    (first, most), (_, next_most), *_ = sorted(scores.items(), key=lambda item: -item[1])
    everything = tuple(item for kind in scores for item in evidence[kind])
    confidence = round(most / (most + next_most + 1.0), 2)
    if most < VOTES_MIN:
        return TypeVote("task", confidence, everything, "no_signal")
    if most - next_most < MARGIN_MIN:
        return TypeVote("task", confidence, everything, "narrow_margin")
    return TypeVote(first, confidence, tuple(evidence[first]), None)
