"""A model may help to classify; it is checked, and it never decides against the rules alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.classify import MODEL_SCHEMA, ModelAnswerError, classify, merge_model
from actors.classify.model import ModelAnswer
from actors.records import Classification, IssueSubmission

BUG = IssueSubmission(source="manual", title="Export crashes", description="It fails since Monday.")
VAGUE = IssueSubmission(source="manual", title="The acme account", description="please look at it")


def answer(**changed: Any) -> dict[str, Any]:
    return {
        "type": "bug",
        "priority": "medium",
        "module": None,
        "complexity": "medium",
        "confidence": "high",
        "evidence": [{"supports": "type", "quote": "Export crashes"}],
        **changed,
    }


def merged(submission: IssueSubmission, **changed: Any) -> Classification:
    return merge_model(classify(submission), answer(**changed), submission, "haiku")


def test_agreement_is_more_confident_than_rules_alone() -> None:
    """Would gain nothing from asking a model."""
    rules = classify(BUG)
    found = merged(BUG)
    assert (found.type, found.abstained, found.classifier) == ("bug", False, "rules@1+haiku")
    assert found.confidence >= rules.confidence
    assert found.evidence[-1].rule == "model.type"


def test_disagreement_on_the_type_goes_to_a_person() -> None:
    """Would let a model, or a text that speaks to models, turn a failure into a wish."""
    found = merged(BUG, type="question")
    assert (found.abstained, found.abstain_reason) == (True, "model_disagrees")
    assert (found.type, found.agent_type) == ("task", "triage")


def test_feature_and_enhancement_are_one_opinion() -> None:
    """Would ask a person about a difference that changes nothing."""
    wish = IssueSubmission(source="manual", title="Please add a dark theme")
    quote = [{"supports": "type", "quote": "dark theme"}]
    found = merged(wish, type="enhancement", evidence=quote)
    assert (found.type, found.abstained) == ("feature", False)


def test_a_model_with_a_quote_decides_where_the_rules_abstain() -> None:
    """Would ask people although the model understood."""
    quote = [{"supports": "type", "quote": "please look at it"}]
    found = merged(VAGUE, type="task", evidence=quote)
    assert (found.type, found.abstained, found.agent_type) == ("task", False, "code")
    unsure = merged(VAGUE, type="task", confidence="low", evidence=quote)
    assert (unsure.abstained, unsure.abstain_reason) == (True, "model_unsure")


@pytest.mark.parametrize(
    "quotes",
    [
        [],
        [{"supports": "type", "quote": "it deletes everything"}],
        [{"supports": "type", "quote": "PLEASE LOOK AT IT"}],
        [{"supports": "type", "quote": ""}],
        [{"supports": "type", "quote": " a"}],
        [{"supports": "module", "quote": "acme"}],
    ],
)
def test_an_opinion_without_a_true_quote_is_not_heard(quotes: list[dict[str, str]]) -> None:
    """Would believe a model that made its evidence up."""
    found = merged(VAGUE, type="bug", evidence=quotes)
    assert (found.abstained, found.type) == (True, "task")
    assert all(item.quote in f"{VAGUE.title}\n{VAGUE.description}" for item in found.evidence)


def test_a_model_raises_urgency_with_a_quote_and_never_lowers_it() -> None:
    """Would bury an urgent issue on a model's word, or raise one on none."""
    quotes = [
        {"supports": "type", "quote": "crashes"},
        {"supports": "priority", "quote": "since Monday"},
    ]
    assert merged(BUG, priority="critical", evidence=quotes).priority == "critical"
    assert merged(BUG, priority="critical").priority == "medium"
    assert merged(BUG, priority="low", evidence=quotes).priority == "medium"


def test_a_declared_type_stands_against_the_model() -> None:
    """Would overrule the source that knows its own tickets."""
    declared = BUG.model_copy(update={"type": "task"})
    found = merged(declared, type="question")
    assert (found.type, found.abstained) == ("task", False)


def test_the_model_may_name_a_module_where_the_rules_have_none() -> None:
    """Would drop the one thing rules are worst at, or take any text for a name."""
    assert merged(BUG, module="Exports").module == "exports"
    assert merged(BUG, module="../../etc\n").module is None
    invoices = BUG.model_copy(update={"title": "Invoice export crashes"})
    quote = [{"supports": "type", "quote": "crashes"}]
    assert merged(invoices, module="crm", evidence=quote).module == "billing"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "not json",
        "[]",
        "null",
        "[" * 50_000,
        "x" * 100_000,
        json.dumps(answer(type="incident")),
        json.dumps(answer(priority="urgent")),
        json.dumps(answer(extra=1)),
        json.dumps({"type": "bug"}),
        json.dumps(answer(evidence=[{"quote": "x"}])),
        json.dumps(answer(evidence="Export crashes")),
        json.dumps(answer(confidence=0.9)),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_a_clear_error(wrong: str) -> None:
    """Would crash triage, or fill the gaps with guesses."""
    with pytest.raises(ModelAnswerError):
        merge_model(classify(BUG), wrong, BUG)


def test_text_bytes_and_parsed_answers_are_the_same() -> None:
    """Would make the caller know how the answer came."""
    rules, text = classify(BUG), json.dumps(answer())
    one = merge_model(rules, text, BUG)
    assert one == merge_model(rules, text.encode(), BUG) == merge_model(rules, answer(), BUG)


def test_the_schema_and_the_reader_ask_for_the_same() -> None:
    """Would refuse what the model was told to answer."""
    fields = ModelAnswer.model_json_schema()["properties"]
    asked = MODEL_SCHEMA["properties"]
    assert asked.keys() == fields.keys() == set(MODEL_SCHEMA["required"])
    for name in ("type", "priority", "complexity", "confidence"):
        assert asked[name]["enum"] == fields[name]["enum"]


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists) | st.binary())
def test_no_answer_at_all_gets_through_unchecked(nonsense: Any) -> None:
    """Would let a model's nonsense end the agent that asked."""
    with pytest.raises(ModelAnswerError):
        merge_model(classify(BUG), nonsense, BUG)
