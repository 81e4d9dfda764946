"""A model's classification beside the rules': checked, and never the only voice.

A model is asked for enums and quotes.  A quote that is not in the issue is
worth nothing, and an opinion without a quote is not heard.  Urgency can only
go up.  Where model and rules name different types a person decides; feature and
enhancement count as one opinion, because the same agent does the same with
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import ConfigDict, ValidationError

from actors.classify.scope import agent_of, capabilities_of
from actors.classify.text import IssueText
from actors.classify.urgency import most_urgent
from actors.errors import AgentError
from actors.records import (
    Classification,
    Complexity,
    Evidence,
    IssuePriority,
    IssueSubmission,
    IssueType,
)
from runtime.wire import WireModel

ANSWER_BYTES_MAX: Final = 64 << 10
EVIDENCE_MAX: Final = 12
_MODULE: Final = re.compile(r"[A-Za-z][\w -]{0,40}")
_HARDER: Final[tuple[Complexity, ...]] = ("simple", "medium", "complex")
_SURE: Final = {"low": 0.4, "medium": 0.7, "high": 0.9}
_ONE_OPINION: Final = frozenset({"feature", "enhancement"})

MODEL_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["type", "priority", "module", "complexity", "confidence", "evidence"],
    "properties": {
        "type": {
            "type": "string",
            "enum": ["bug", "feature", "enhancement", "question", "task"],
            "description": "What kind of work the author asks for.",
        },
        "priority": {"type": "string", "enum": ["critical", "high", "medium", "low"]},
        "module": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": "The part of the product in one word; null if the issue does not say.",
        },
        "complexity": {"type": "string", "enum": ["simple", "medium", "complex"]},
        "confidence": {"type": "string", "enum": ["low", "medium", "high"]},
        "evidence": {
            "type": "array",
            "description": "At least one quote for the type, and one for any raised priority.",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["supports", "quote"],
                "properties": {
                    "supports": {"type": "string", "enum": ["type", "priority", "module"]},
                    "quote": {
                        "type": "string",
                        "description": "A short piece of the title or description, verbatim.",
                    },
                },
            },
        },
    },
}
"""For structured output; `ModelAnswer` is what it comes back as."""


class ModelAnswerError(AgentError):
    """The model's classification does not follow its schema; the rules' stands."""


class ModelQuote(WireModel):
    model_config = ConfigDict(strict=True)

    supports: Literal["type", "priority", "module"]
    quote: str


class ModelAnswer(WireModel):
    """What `MODEL_SCHEMA` asks for."""

    model_config = ConfigDict(strict=True)

    type: IssueType
    priority: Literal["critical", "high", "medium", "low"]
    module: str | None
    complexity: Complexity
    confidence: Literal["low", "medium", "high"]
    evidence: list[ModelQuote]


def merge_model(
    rules: Classification,
    model_json: str | bytes | Mapping[str, Any],
    submission: IssueSubmission,
    model: str = "model",
) -> Classification:
    """The classification of rules and model together.

    Args:
        rules: what `classify` says of the same submission.
        model_json: the model's answer, as text or as parsed JSON.
        model: its name, for `classifier`.

    Raises:
        ModelAnswerError: the answer can't be read; keep the rules'.
    """
    answer = _read(model_json)
    text = IssueText.of(submission)
    quotes = [item for item in answer.evidence if text.holds(item.quote)][:EVIDENCE_MAX]
    supported = {item.supports for item in quotes}
    declared = submission.type is not None
    type, confidence, reason = _type(rules, answer, "type" in supported, declared)
    priority: IssuePriority = rules.priority
    if "priority" in supported:
        priority = most_urgent(priority, answer.priority)
    module = rules.module or _module(answer.module)
    agent = agent_of(type, reason is not None)
    said = [Evidence(rule=f"model.{item.supports}", quote=item.quote) for item in quotes]
    return Classification(
        type=type,
        priority=priority,
        module=module,
        complexity=max(rules.complexity, answer.complexity, key=_HARDER.index),
        agent_type=agent,
        capabilities=capabilities_of(text, agent),
        confidence=confidence,
        evidence=(*rules.evidence, *said),
        classifier=f"{rules.classifier}+{model}",
        abstained=reason is not None,
        abstain_reason=reason,
    )


def _read(model_json: str | bytes | Mapping[str, Any]) -> ModelAnswer:
    try:
        if isinstance(model_json, str | bytes):
            if len(model_json) > ANSWER_BYTES_MAX:
                raise ModelAnswerError(f"over {ANSWER_BYTES_MAX} bytes")
            model_json = json.loads(model_json)
        return ModelAnswer.model_validate(model_json)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ModelAnswerError(f"{place}: {first['msg']}") from error
        raise ModelAnswerError("not JSON") from error


def _type(
    rules: Classification, answer: ModelAnswer, supported: bool, declared: bool
) -> tuple[IssueType, float, str | None]:
    """Type, confidence, and why a person is asked (if so)."""
    if declared:
        return rules.type, rules.confidence, None
    if not supported:
        return rules.type, rules.confidence, rules.abstain_reason
    sure = _SURE[answer.confidence]
    if rules.abstained:
        if answer.confidence == "low":
            return rules.type, min(rules.confidence, sure), "model_unsure"
        return answer.type, sure, None
    if answer.type == rules.type or {answer.type, rules.type} == _ONE_OPINION:
        return rules.type, max(rules.confidence, sure), None
    return "task", min(rules.confidence, sure), "model_disagrees"


def _module(name: str | None) -> str | None:
    return name.strip().lower() if name and _MODULE.fullmatch(name.strip()) else None
