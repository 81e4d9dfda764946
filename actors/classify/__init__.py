"""Triage without a model: what an issue is, how urgent, and who should take it.

`classify` is a pure function of the submission: ordered rules with evidence,
and abstention where they do not know.  What a trusted source declared wins over
the rules, except that the rules may raise urgency.  `merge_model` lets a model
speak beside them and sends disagreement to a person.  How well the rules do is
measured in `tests/unit/test_classify_labelled.py`.
"""

from __future__ import annotations

from typing import Final

from actors.classify.model import MODEL_SCHEMA, ModelAnswerError, merge_model
from actors.classify.scope import agent_of, capabilities_of, complexity_of, module_of
from actors.classify.text import IssueText
from actors.classify.types import TypeVote, vote
from actors.classify.urgency import urgency_of
from actors.records import Classification, IssueSubmission, IssueType

CLASSIFIER: Final = "rules@1"
"""Raise the number with every change that may change an answer."""
DECLARED_CONFIDENCE: Final = 0.95
DISPUTED_CONFIDENCE: Final = 0.6
"""Declared as one thing, described as another."""


def classify(submission: IssueSubmission) -> Classification:
    """Classify an issue; the same submission always gets the same answer."""
    text = IssueText.of(submission)
    voted = vote(text)
    type, confidence, reason = _type(submission.type, voted)
    files = submission.context.affected_files
    priority, urgent = urgency_of(text, submission.priority, type)
    module, located = module_of(text, submission.declared_module, files)
    agent = agent_of(type, reason is not None)
    return Classification(
        type=type,
        priority=priority,
        module=module,
        complexity=complexity_of(text, type, files),
        agent_type=agent,
        capabilities=capabilities_of(text, agent),
        confidence=confidence,
        evidence=(*voted.evidence, *urgent, *located),
        classifier=CLASSIFIER,
        abstained=reason is not None,
        abstain_reason=reason,
    )


def _type(declared: IssueType | None, voted: TypeVote) -> tuple[IssueType, float, str | None]:
    if declared is None:
        return voted.type, voted.confidence, voted.reason
    disputed = voted.reason is None and voted.type != declared
    return declared, DISPUTED_CONFIDENCE if disputed else DECLARED_CONFIDENCE, None


__all__ = [
    "CLASSIFIER",
    "MODEL_SCHEMA",
    "ModelAnswerError",
    "classify",
    "merge_model",
]
