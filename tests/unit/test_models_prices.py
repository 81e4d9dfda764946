"""Prices: an upper bound before, the truth after, and nothing invented."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models import errors
from actors.models.prices import PRICES, SCRIPTED_MODEL, reserve_usd, settle_usd
from actors.models.request import Usage

OPUS, HAIKU = PRICES["claude-opus-5-5"], PRICES["claude-haiku-5-5"]


def test_each_kind_of_token_has_its_own_price():
    """Cached tokens would be booked at the full price, or for nothing."""
    million = 1_000_000
    for field, usd in (
        ("input_tokens", 4),
        ("output_tokens", 20),
        ("write_5m_tokens", 5),
        ("write_1h_tokens", 8),
        ("read_tokens", 0.20),
    ):
        assert settle_usd(OPUS, Usage(**{field: million})) == pytest.approx(usd)


def test_a_long_prompt_costs_more_on_every_token():
    """Haiku above 100,000 tokens would be booked at a fifth of its price."""
    short = settle_usd(HAIKU, Usage(input_tokens=100_000, output_tokens=1_000))
    long = settle_usd(HAIKU, Usage(read_tokens=100_001, output_tokens=1_000))
    assert short == pytest.approx(0.0105)
    assert long == pytest.approx((100_001 * 0.05 + 1_000 * 2.50) / 1e6)


def test_an_unknown_model_has_no_price_rather_than_none_to_pay():
    """A model missing from the table would run for $0 and no limit would ever stop it."""
    assert settle_usd(None, Usage(input_tokens=1_000)) is None
    assert reserve_usd(None, 1_000, 1_000) is None


@given(
    body_bytes=st.integers(1, 4_000_000),
    max_tokens=st.integers(1, 128_000),
    shares=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    output_share=st.floats(0, 1),
    model=st.sampled_from(sorted(PRICES)),
)
def test_a_reserve_covers_whatever_the_call_turns_out_to_cost(
    body_bytes, max_tokens, shares, output_share, model
):
    """A run would overspend its budget although every call was checked before."""
    prompt = body_bytes / 3.2
    parts, left = [], prompt
    for share in shares:
        parts.append(int(left * share))
        left -= parts[-1]
    usage = Usage(parts[0], int(max_tokens * output_share), parts[1], 0, parts[2])
    price = PRICES[model]
    assert settle_usd(price, usage) <= reserve_usd(price, body_bytes, max_tokens) + 1e-12


@pytest.mark.parametrize("model", sorted(PRICES))
@pytest.mark.parametrize("body_bytes", [3_200, 640_000])
def test_a_reserve_covers_the_dearest_call(model, body_bytes):
    """A first call writes its whole prompt to the cache, which costs more than reading it."""
    prompt = body_bytes * 10 // 32
    dearest = settle_usd(PRICES[model], Usage(0, 1_000, write_5m_tokens=prompt))
    assert reserve_usd(PRICES[model], body_bytes, 1_000) == pytest.approx(dearest)


def test_only_the_script_has_invented_prices():
    """An invented price would be taken for a real model's."""
    assert [name for name, price in PRICES.items() if price.fictional] == [SCRIPTED_MODEL]
    assert all(price.input > 0 and price.output > price.input for price in PRICES.values())


def test_every_price_is_of_a_model_the_sdk_knows():
    """A misspelt id in the table would leave the model it meant without a price."""
    from typing import get_args

    from anthropic.types.model import Model

    known = {name for kind in get_args(Model) for name in get_args(kind)}
    assert set(PRICES) - {SCRIPTED_MODEL} <= known


def test_usage_reads_what_servers_leave_out():
    """A compatible server without cache fields would crash the settling."""
    assert Usage.from_wire({"input_tokens": 7, "output_tokens": None}) == Usage(7)
    assert Usage.from_wire({"cache_creation_input_tokens": 9}).write_5m_tokens == 9
    full = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "cache_read_input_tokens": 4,
    }
    assert Usage.from_wire(full) == Usage(1, 2, 10, 20, 4)
    assert Usage.from_wire(full).total_tokens == 37


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelNotConfiguredError(),
        errors.ModelUnavailableError("overloaded_error", 1_700_000_000_000, 0.5),
        errors.ModelLimitError("rate_limited", "slow down", 0.5),
        errors.ModelRequestError(400, "invalid_request_error", "no", 0.5),
        errors.ModelAnswerError("duplicate_tool_ids", 0.5),
        errors.BudgetSpentError(0.3, 0.1, 0.5),
        errors.UnpricedModelError("qwen"),
    ],
)
def test_errors_come_back_from_pickle_as_they_were(error):
    """An error that crossed a process would arrive as a serialization failure."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, str(again)) == (type(error), error.args, str(error))
    assert again.__dict__ == error.__dict__
